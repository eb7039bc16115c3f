"""`mal-trt prune`: what it writes, what it refuses, and that its zeros and widths go all the way to INT8 and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("lightning_fabric")

from figure_data import write_figures
from killed_run import ended_at
from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration.sparsity import sparse_layers
from mal_trt.cli import app
from mal_trt.export import export_onnx
from mal_trt.export import prune as prune_module
from mal_trt.export.prune import prune
from mal_trt.export.prune_settings import PruneSettings
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.exported import read_exported
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.sparse import META, is_two_four

SIZE = 64
CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", SIZE, mask_head_hidden_channel=16, depth=1, adjust_scale=False)
SMALL = PruneSettings(crops=16, check_crops=16, sensitivity_crops=4, max_miou_drop=1.0, threads=1, batch=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn pictures of one box each."""
    folder = tmp_path_factory.mktemp("prune")
    write_figures(folder, 96)
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("dense") / "dense.pth"
    meta = {"thresholds": [0.4], "test_margin": 0.3}
    network = build_network(CONFIG)
    for parameter in network.parameters():  # no two alike, as after training; the exporter stores equal ones once
        parameter.data += 0.02 * torch.randn(parameter.shape)
    save_checkpoint(path, CONFIG, student=network.state_dict(), meta=meta)
    return path


def sources(data: Path) -> list[tuple[Path | None, Path]]:
    return [(data / "pictures", data / "boxes.json")]


def test_zeros_from_the_checkpoint_to_int8(dense: Path, data: Path, tmp_path: Path) -> None:
    report = prune(dense, tmp_path / "p.pth", sources(data), SMALL)
    names = [row["name"] for row in report.document["layers"] if row["sparse"]]
    assert len(names) == len(report.document["layers"]) >= 10
    assert report.document["sparse_share"] > 0.8
    assert json.loads(report.report_path.read_text())["layers"] == report.document["layers"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.pth", "p.report.json"]
    found = read_checkpoint(report.path)
    assert found.meta[META] == names and list(found.meta["thresholds"]) == [0.4]
    assert all(is_two_four(found.student[f"{name}.weight"]) for name in names)

    model = export_onnx(report.path, tmp_path / "p.onnx").path
    in_graph = sparse_layers(onnx.load(model))
    assert {name.partition("/")[0] for name, sparse in in_graph.items() if sparse} == {f"student.{n}" for n in names}
    again = read_exported(model)
    assert again.meta[META] == names
    assert all(
        torch.equal(again.student[name], value) for name, value in found.student.items() if name in again.student
    )

    from mal_trt.calibration.graph import load_onnx
    from mal_trt.calibration.half import to_half
    from mal_trt.calibration.quantize import choose, quantize

    proto = load_onnx(model)[0]
    half = to_half(proto)
    chosen = choose(half, ("linear", "head"), "p.onnx")
    quantized = quantize(half, chosen, {layer.name: 4.0 for layer in chosen})
    sparse = {name for name, is_sparse in sparse_layers(quantized).items() if is_sparse}
    assert sparse == {name for name, is_sparse in in_graph.items() if is_sparse}
    assert {layer.name for layer in chosen} <= sparse


def test_an_export_that_lost_its_zeros_is_not_written(dense: Path, tmp_path: Path) -> None:
    source = read_checkpoint(dense)
    save_checkpoint(tmp_path / "p.pth", CONFIG, student=source.student, meta={META: ["mask_head.reduce"]})
    with pytest.raises(RunError, match=r"1 of 1 sparse layers lost their zeros, such as student\.mask_head\.reduce"):
        export_onnx(tmp_path / "p.pth", tmp_path / "p.onnx")
    assert not (tmp_path / "p.onnx").exists()


def test_a_narrower_network_goes_all_the_way(dense: Path, data: Path, tmp_path: Path) -> None:
    report = prune(dense, tmp_path / "n.pth", sources(data), replace(SMALL, sparsity="none", macs=0.7))
    work = report.document["multiplications"]
    assert work["left"] <= 0.7 * work["dense"] and report.document["widths"]
    found = read_checkpoint(report.path)
    assert found.config.trimmed and found.config.arch == CONFIG.arch
    model = export_onnx(report.path, tmp_path / "n.onnx").path
    again = read_exported(model)
    assert again.config == replace(found.config, frozen_stages=(-1,))
    networks = []
    for source in (found, again):
        networks.append(build_network(source.config).eval())
        load_into(networks[-1], source)
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        logits = [network(image, torch.ones(2)) for network in networks]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
    # and may be pruned once more, from the exported file
    twice = prune(model, tmp_path / "nn.pth", sources(data), SMALL)
    assert read_checkpoint(twice.path).config.trimmed == found.config.trimmed


def test_the_report_takes_no_input_s_place(dense: Path, data: Path, tmp_path: Path) -> None:
    ((images, boxes),) = sources(data)
    given = tmp_path / "p.report.json"
    given.write_bytes(Path(str(boxes)).read_bytes())
    with pytest.raises(InputError, match=r"p\.report\.json: is an input"):
        prune(dense, tmp_path / "p.pth", [(images, given)], SMALL)
    assert given.read_bytes() == Path(str(boxes)).read_bytes() and not (tmp_path / "p.pth").exists()


@pytest.mark.parametrize("drawn", [True, False])
def test_the_limit_is_that_of_what_is_compared(
    dense: Path, data: Path, tmp_path: Path, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes that bring drawn masks are judged by mIoU, without --annotations too."""
    ((images, boxes),) = sources(data)
    document = json.loads(Path(str(boxes)).read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]] if drawn else []
    given = tmp_path / "boxes.json"
    given.write_text(json.dumps(document))
    asked: list[bool] = []
    limit = PruneSettings.limit
    monkeypatch.setattr(PruneSettings, "limit", lambda own, drawn: asked.append(drawn) or limit(own, drawn))
    prune(dense, tmp_path / "p.pth", [(images, given)], SMALL)
    assert asked == [drawn]


def test_dear_layers_are_left_out(dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate: as many layers as stay within the limit, the costliest left out; none, and it is refused by name."""
    report = prune(dense, tmp_path / "all.pth", sources(data), SMALL)
    least = 1 - report.document["agreement"]["mask_iou"]["mean"]
    assert least > 0
    tight = replace(SMALL, max_miou_drop=least / 3)
    report = prune(dense, tmp_path / "some.pth", sources(data), tight)
    rows = report.document["layers"]
    kept = [row["change"] for row in rows if row["sparse"]]
    out = [row["change"] for row in rows if not row["sparse"]]
    assert kept and out and max(kept) <= min(out)
    assert 1 - report.document["agreement"]["mask_iou"]["mean"] <= least / 3
    with pytest.raises(RunError, match=r"no set of layers can be sparse within the limit of 0; costliest alone: \w+"):
        prune(dense, tmp_path / "none.pth", sources(data), replace(SMALL, max_miou_drop=0.0, layers=("conv",)))
    assert not list(tmp_path.glob("*none*"))


def test_a_recovery_goes_on_where_it_was_killed(
    dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SMALL, score="magnitude", recover=320, precision="fp32", device="cpu", preload=True)
    whole = prune(dense, tmp_path / "whole.pth", sources(data), settings)
    before, after = whole.document["recovery"]["before"], whole.document["agreement"]
    assert after["logit_error"]["mean"] < before["logit_error"]["mean"]
    assert after["mask_iou"]["mean"] > before["mask_iou"]["mean"]
    assert not (tmp_path / "whole.recovery").exists()

    with ended_at(2, KeyboardInterrupt):
        prune(dense, tmp_path / "killed.pth", sources(data), settings)
    assert not (tmp_path / "killed.pth").exists()
    with pytest.raises(InputError, match="of another model or other options"):
        prune(dense, tmp_path / "killed.pth", sources(data), replace(settings, score="wanda"))
    monkeypatch.setattr(prune_module, "_prune", lambda *given: pytest.fail("pruned a second time"))
    found = read_checkpoint(prune(dense, tmp_path / "killed.pth", sources(data), settings).path)
    expected = read_checkpoint(whole.path)
    assert all(torch.equal(value, expected.student[name]) for name, value in found.student.items())
    assert all(is_two_four(found.student[f"{name}.weight"]) for name in found.meta[META])


def test_nothing_held_back_is_trained_on(dense: Path, data: Path, tmp_path: Path) -> None:
    from mal_trt.export import prune_recovery
    from mal_trt.export.prune_start import prepare

    prepared = prepare(dense, tmp_path / "p.pth", sources(data), SMALL, None, "student")
    _, (boxes,) = prune_recovery._without(tmp_path, sources(data), prepared.held)
    trained = {record["image_id"] for record in json.loads(boxes.read_text())["annotations"]}
    assert trained and not trained & {spot.record["image_id"] for spot in prepared.held}
    assert len(trained) + len({spot.record["image_id"] for spot in prepared.held}) == 40


def test_a_recovery_goes_on_only_with_the_same_annotations(dense: Path, data: Path, tmp_path: Path) -> None:
    """With drawn masks to check on, a recovery trains on the pictures that would be held back without."""
    from mal_trt.export.prune_start import prepare

    document = json.loads((data / "boxes.json").read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    settings, drawn = replace(SMALL, recover=320), []
    for number in range(2):
        drawn.append((data / "pictures", tmp_path / f"drawn{number}.json"))
        drawn[-1][1].write_text(json.dumps({**document, "info": {"version": number}}))
    given = [(dense, tmp_path / "p.pth", sources(data), settings, one, "student") for one in (None, *drawn)]
    assert len({prepare(*words).key for words in given}) == 3


BAD = [
    (["--out", "p.onnx"], r"p\.onnx: the name of this output must end in \.pth"),
    (["--macs", "1.5"], r"--macs 1\.5: expected a share"),
    (["--sparsity", "none"], "nothing to prune"),
    (["--layers", "linear,attention"], "--layers attention: expected one of linear, pointwise, conv"),
    (["--skip", "decoder"], "--skip decoder: no layer is called so"),
    (["--crops", "400"], "usable boxes, 656 wanted"),
    (["--macs", "0.001", "--crops", "16", "--check-crops", "16"], r"can be cut to 0\.\d+ of its multiplications"),
    ([], "40 usable boxes, 384 wanted"),
]


@pytest.mark.parametrize(("options", "says"), BAD)
def test_bad_input_is_one_line(dense: Path, data: Path, tmp_path: Path, options: list[str], says: str) -> None:
    import re

    words = ["prune", str(dense), "--images", str(data / "pictures"), "--boxes", str(data / "boxes.json"), "--quiet"]
    if "--out" not in options:
        options = [*options, "--out", str(tmp_path / "p.pth")]
    result = CliRunner().invoke(app, [*words, *options])
    lines = result.output.strip().splitlines()
    assert result.exit_code == 2 and len(lines) == 1 and re.search(says, lines[0]), result.output
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_pruned(dense: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"vtrt" * 100)
    out = tmp_path / "p.pth"
    with pytest.raises(InputError, match="a TensorRT engine"):
        prune(tmp_path / "m.engine", out, sources(data), SMALL)
    with pytest.raises(InputError, match="nothing says the boxes"):
        prune(dense, out, [], SMALL)
    state = read_checkpoint(dense).student
    save_checkpoint(tmp_path / "s.pth", CONFIG, student=state, meta={META: ["mask_head.reduce"]})
    with pytest.raises(InputError, match="is 2:4 sparse already"):
        prune(tmp_path / "s.pth", out, sources(data), SMALL)
    (tmp_path / "p.recovery").mkdir()
    with pytest.raises(InputError, match="the recovery needs that name"):
        prune(dense, out, sources(data), replace(SMALL, recover=16))
    assert not out.exists()


def test_the_command(dense: Path, data: Path, tmp_path: Path) -> None:
    words = ["prune", str(dense), "--boxes", str(data / "boxes.json"), "--images", str(data / "pictures")]
    words += ["--crops", "16", "--check-crops", "16", "--max-miou-drop", "1", "-o", str(tmp_path / "p.pth")]
    result = CliRunner().invoke(app, [*words, "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["result"]["path"] == str(tmp_path / "p.pth")
    assert document["result"]["multiplications"]["left"] == document["result"]["multiplications"]["dense"]
    result = CliRunner().invoke(app, [*words, "--macs", "0.8"])
    assert result.exit_code == 0 and "million multiplications left" in result.output
    assert "Widths that were cut" in result.output
