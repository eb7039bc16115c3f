"""`compare`: the same mIoU as `evaluate`, boxes spread evenly, and models that go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.cli import app
from mal_trt.cli.compare_table import print_comparison
from mal_trt.measure.agreement import Agreement, Answer
from mal_trt.measure.compare import compare
from mal_trt.measure.evaluate import evaluate

OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1, "progress": False}


@pytest.fixture
def blobs(data_set: Any) -> tuple[Path, Path]:
    """18 boxes in 3 pictures; the drawn mask is the left half of the box, the last has none."""
    images, path = data_set()
    document = json.loads(path.read_text())
    for record in document["annotations"][:-1]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w / 2, y, x + w / 2, y + h, x, y + h]]
    path.write_text(json.dumps(document))
    return images, path


@pytest.fixture
def model(tiny_model: Any, tmp_path: Path) -> Any:
    """Writes a tiny model under a name."""
    return lambda name, **options: tiny_model(**options).rename(tmp_path / name)


def test_other_gain(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=4.0), model("c.onnx")]
    result = compare(models, images, document, **OPTIONS)
    half, same = result["models"]
    assert (result["boxes"], result["drawn_masks"], result["skipped"]) == (18, 17, 0)
    assert half["boxes"] == sum(figures["boxes"] for figures in half["by_size"].values()) == 18
    # Six boxes are of medium size, but half of those stick out of their picture.
    assert half["by_size"]["small"]["boxes"] == 15 and half["by_size"]["medium"]["boxes"] == 3
    # Half the gain halves every logit, and leaves each on its side of a probability of one half.
    assert half["logit_error"]["relative_max"] < 0.5 and half["logit_error"]["max"] > 1
    assert half["mask_iou"]["worst"] > 0.8
    assert same["logit_error"]["max"] == 0 and same["mask_iou"]["worst"] == 1
    assert same["miou"]["difference"]["all"] == 0
    assert result["reference"]["provider"] == "CPUExecutionProvider"


def test_miou_is_that_of_evaluate(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    options = {**OPTIONS, "threshold": 0.6, "flip": True}
    found = compare(models, images, document, **options)["models"][0]["miou"]
    for path, which in zip(models, ("reference", "other"), strict=True):
        expected = evaluate(images, document, path, **options)
        for size, key in (("all", "miou"), ("small", "miou_small"), ("medium", "miou_medium"), ("large", "miou_large")):
            assert found[which][size] == pytest.approx(expected[key], abs=1e-12)
    assert found["difference"]["all"] == pytest.approx(found["other"]["all"] - found["reference"]["all"])
    assert found["difference"]["all"] != 0


def test_masks_are_refined_as_labelling_does_logits_are_not(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    plain, refined = (
        compare(models, images, document, refine=how, **OPTIONS)["models"][0] for how in ("none", "color")
    )
    assert plain["logit_error"] == refined["logit_error"]
    assert plain["mask_iou"] != refined["mask_iou"]
    expected = evaluate(images, document, models[1], refine="color", **OPTIONS)["miou"]
    assert refined["miou"]["other"]["all"] == pytest.approx(expected, abs=1e-12)
    assert refined["miou"]["other"]["all"] != plain["miou"]["other"]["all"]


def test_batch_does_not_matter(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=4.0)]
    one, many = (compare(models, images, None, document, batch=batch, **OPTIONS) for batch in (1, 16))
    assert one["models"][0]["miou"] is None and one["drawn_masks"] == 0
    assert one["models"][0]["mask_iou"] == many["models"][0]["mask_iou"]
    assert one["models"][0]["logit_error"] == pytest.approx(many["models"][0]["logit_error"])


def test_count_is_spread_evenly(blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    add = Agreement.add

    def spy(self: Agreement, reference: Answer, other: Answer) -> None:
        seen.append(reference.box)
        add(self, reference, other)

    monkeypatch.setattr(Agreement, "add", spy)
    images, document = blobs
    models = [model("a.onnx")] * 2
    assert compare(models, images, document, count=6, **OPTIONS)["boxes"] == 6
    assert list(np.diff(sorted(seen))) == [3] * 5
    assert compare(models, images, document, count=99, **OPTIONS)["boxes"] == 18


def test_crops_of_other_sizes(blobs: tuple[Path, Path], model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", side=128), model("c.onnx", gain=7.0)]
    result = compare(models, images, document, **OPTIONS)
    fine, near = result["models"]
    assert fine["logit_error"] is None and fine["input_size"] == 128
    assert 0.7 < fine["mask_iou"]["mean"] < 1
    assert near["logit_error"]["max"] > 0
    expected = evaluate(images, document, models[1], **OPTIONS)["miou"]
    assert fine["miou"]["other"]["all"] == pytest.approx(expected, abs=1e-12)
    print_comparison(result)
    assert "b.onnx: its logits cannot be compared" in capsys.readouterr().out


def test_nan_is_found_by_box(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    """A model that takes the root of what is left of a bright pixel fails where the boxes are, not beside them."""
    images, path = blobs
    document = json.loads(path.read_text())
    dark = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [39, 39, 2, 2], "segmentation": [[1, 1, 2, 1, 2, 2]]}
    document["annotations"].append(dark)
    path.write_text(json.dumps(document))
    broken = nan_where_bright(model("b.onnx"))
    sound = model("a.onnx")
    result = compare([sound, broken], images, path, batch=5, **OPTIONS)
    found = result["models"][0]
    assert result["boxes"] == 19
    assert found["not_finite"]["count"] == 18 and 7 not in found["not_finite"]["boxes"]
    assert found["mask_iou"]["below_0.9"] >= 18 / 19 and found["logit_error"]["max"] > 0
    turned = compare([broken, sound], images, path, batch=5, **OPTIONS)["models"][0]
    assert turned["boxes"] == 1 and turned["reference_not_finite"]["count"] == 18
    with pytest.raises(RunError, match="NaN"):
        evaluate(images, path, broken, **OPTIONS)


def nan_where_bright(path: Path) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "sound"
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "limit"))
    graph.node.append(helper.make_node("Sub", ["limit", "sound"], ["left"]))
    graph.node.append(helper.make_node("Sqrt", ["left"], ["logits"]))
    onnx.save(model, path)
    return path


def test_what_cannot_be_read_is_skipped_and_counted(
    blobs: tuple[Path, Path], model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    images, path = blobs
    (images / "000000000002.png").write_bytes(b"no picture")
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [1, 1, 0, 5]
    path.write_text(json.dumps(document))
    result = compare([model("a.onnx")] * 2, images, path, **OPTIONS)
    assert (result["boxes"], result["skipped"]) == (11, 7)
    assert result["skipped_reasons"] == {"bbox has zero or negative width or height": 1, "not a picture": 6}
    print_comparison(result)
    assert "7 boxes skipped" in capsys.readouterr().out


def test_nothing_to_compare(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    images, path = blobs
    models = [model("a.onnx")] * 2
    document = json.loads(path.read_text())
    for records, message in (
        ([], r"boxes\.json: no boxes in it, so none was compared"),
        ([{**document["annotations"][0], "bbox": [500, 1, 5, 5]}], "no pixel inside the picture: 1"),
        ([{**document["annotations"][0], "segmentation": []}], "no box has a drawn mask; .*--boxes"),
    ):
        path.write_text(json.dumps({**document, "annotations": records}))
        with pytest.raises(MalTrtError, match=message):
            compare(models, images, path, **OPTIONS)
    for picture in images.iterdir():
        picture.write_bytes(b"")
    path.write_text(json.dumps(document))
    with pytest.raises(MalTrtError, match="picture file is empty: 18"):
        compare(models, images, path, **OPTIONS)


def test_without_drawn_masks_no_network_runs(
    blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, path = blobs
    document = json.loads(path.read_text())
    records = [{**record, "segmentation": []} for record in document["annotations"]]
    path.write_text(json.dumps({**document, "annotations": records}))
    monkeypatch.setattr("mal_trt.measure.compare.Comparison.all", None)
    with pytest.raises(InputError, match="no box has a drawn mask"):
        compare([model("a.onnx")] * 2, images, path, **OPTIONS)


def test_bad_arguments(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    images, path = blobs
    models = [model("a.onnx")] * 2
    for changes, message in (
        ({"models": models[:1]}, "two models or more, given 1"),
        ({"annotations": None}, "--annotations.*--boxes"),
        ({"boxes": path}, "--annotations.*--boxes"),
        ({"count": 0}, "count 0"),
        ({"refine": "sharp"}, "refine sharp"),
        ({"threshold": "tight"}, "threshold tight"),
        ({"batch": 0}, "batch 0"),
        ({"models": [models[0], tmp_path / "absent.onnx"]}, r"absent\.onnx: no such model"),
        ({"json_out": tmp_path / "absent" / "out.json"}, "folder does not exist"),
        ({"images": tmp_path / "absent"}, "absent: no such folder"),
    ):
        given: dict[str, Any] = {"models": models, "images": images, "annotations": path, **OPTIONS, **changes}
        with pytest.raises(InputError, match=message):
            compare(**given)


def test_foreign_model(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    import onnx

    images, path = blobs
    foreign = onnx.load(model("foreign.onnx"))
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign\.onnx: .*metadata"):
        compare([model("a.onnx"), tmp_path / "foreign.onnx"], images, path, **OPTIONS)


def test_command(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    images, path = blobs
    arguments = [str(model("a.onnx")), str(model("b.onnx", gain=2.0)), "--images", str(images), "--device", "cpu"]
    out = tmp_path / "out.json"
    ran = CliRunner().invoke(app, ["compare", *arguments, "--annotations", str(path), "--json-out", str(out)])
    assert ran.exit_code == 0, ran.output
    for part in ("a.onnx", "b.onnx", "small", "medium", "mIoU"):
        assert part in ran.output
    assert "large " not in ran.output  # no box of that size
    assert json.loads(out.read_text())["models"][0]["boxes"] == 18
    ran = CliRunner().invoke(app, ["compare", *arguments])
    assert ran.exit_code == 2 and "--annotations" in ran.output
