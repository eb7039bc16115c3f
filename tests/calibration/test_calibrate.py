"""Calibration from end to end: what it writes, what it refuses, and that nothing is lost or left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from mal_trt import label
from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, NothingDone, RunError
from mal_trt.calibration import calibrate as module
from mal_trt.calibration.calibrate import calibrate
from mal_trt.calibration.convert import convert
from mal_trt.calibration.dry_run import forecast
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.geometry.boxes import SizeClass

Write = Callable[..., Any]
QUICK = CalibrationSettings(crops=32, check_crops=4, sensitivity_crops=0)
FC = [f"student.backbone.blocks.{block}.mlp.fc{layer}/MatMul" for block in (0, 1) for layer in (1, 2)]


def rows(report: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(report.read_text())["layers"]}


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantised_model_labels_like_the_original(
    tmp_path: Path, encoder: Write, pictures: Write, precision: str
) -> None:
    model, (images, boxes) = encoder(), pictures()
    out = tmp_path / "out.onnx"
    report = calibrate(
        model, out, [(images, boxes)], CalibrationSettings(precision, crops=32, check_crops=4, max_miou_drop=0.05)
    )
    contract = Contract.from_json({e.key: e.value for e in onnx.load(out).metadata_props}[METADATA_KEY], "out")
    assert contract.precision == precision and contract.extra["calibration"]["quantized"] == FC
    assert [row["precision"] for row in rows(report.report_path).values()] == [precision] * 4
    assert all(row["change"] is not None for row in rows(report.report_path).values())
    nodes = [node.op_type for node in onnx.load(out).graph.node]
    assert nodes.count("QuantizeLinear") == 4 and nodes.count("DequantizeLinear") == 8
    with np.load(tmp_path / "out.parity.npz") as parity:
        backend = open_backend(out, "cpu")
        logits = backend.run(parity["image"], SizeClass.MEDIUM)
        share = {"int8": 0.05, "fp8": 0.1}[precision]  # FP8 has three bits of mantissa
        assert np.abs(logits - parity["logits"][0]).max() < share * np.ptp(parity["logits"])
    summary = label(images, boxes, out, tmp_path / "labels.json", device="cpu", progress=False)
    assert summary.labelled == 36
    assert not list(tmp_path.glob(".*"))


def test_fp16_model_is_taken_too(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    convert(model, tmp_path / "half.onnx", images=images, boxes=boxes)
    calibrate(tmp_path / "half.onnx", tmp_path / "a.onnx", [(images, boxes)], QUICK)
    calibrate(model, tmp_path / "b.onnx", [(images, boxes)], QUICK)
    a, b = (onnx.load(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert [node.op_type for node in a.graph.node] == [node.op_type for node in b.graph.node]
    backends = [open_backend(tmp_path / name, "cpu") for name in ("a.onnx", "b.onnx")]
    with np.load(tmp_path / "half.parity.npz") as parity:
        first, second = (backend.run(parity["image"], SizeClass.LARGE) for backend in backends)
    assert np.abs(first - second).mean() < 0.02  # a value here and there falls on the next level


def test_the_gate_leaves_out_the_layer_that_int8_breaks(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(outlier=3000.0), pictures(masks=True)
    settings = CalibrationSettings(crops=32, check_crops=4, observer="max", max_miou_drop=0.01)
    report = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], settings)
    found = rows(report.report_path)
    broken = "student.backbone.blocks.1.mlp.fc1/MatMul"
    assert max(found, key=lambda name: found[name]["change"]) == broken
    assert found[broken]["precision"] == "fp16" and found[broken]["largest"] > 2900
    assert [found[name]["precision"] for name in FC if name != broken] == ["int8"] * 3
    assert report.document["agreement"]["miou"] is not None  # the boxes' own masks were used


def test_no_file_if_the_gate_cannot_be_passed(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RunError, match="no set of layers stays within the limit"):
        calibrate(
            model,
            tmp_path / "out.onnx",
            [(images, boxes)],
            CalibrationSettings(crops=32, check_crops=4, max_miou_drop=0),
        )
    assert sorted(os.listdir(tmp_path)) == before


def test_annotations_decide_by_drawn_masks(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures(masks=True)
    report = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], QUICK, annotations=(images, boxes))
    assert report.document["agreement"]["miou"]["objects"] == 4
    assert report.document["agreement"]["miou"]["reference"]["all"] > 0.8


def test_the_limit_is_that_of_what_is_compared(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    """Boxes may bring drawn masks; where most have none, the few others say too little of mIoU."""
    model, (images, boxes) = encoder(), pictures(masks=True)
    document = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], QUICK).document
    assert document["agreement"]["miou"]["objects"] == 4 and document["limit"] == 0.005
    content = json.loads(boxes.read_text())
    for record in content["annotations"][::3] + content["annotations"][1::3]:
        del record["segmentation"]
    boxes.write_text(json.dumps(content))
    document = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], QUICK).document
    assert document["agreement"]["miou"] is None and document["limit"] == 0.02


def test_the_cache_knows_what_makes_a_crop() -> None:
    from mal_trt.calibration.cache import PIPELINE
    from mal_trt.formats import depth, image_source, jpeg, pixels
    from mal_trt.geometry import boxes, crops

    used = (boxes.extended_box, crops.make_frame, crops.read_crop, image_source.ImageSource.load)
    used = (*used, pixels.read_picture, pixels.to_rgb, jpeg.read_jpeg, depth.to_8_bits)
    files = {function.__module__.removeprefix("mal_trt.").replace(".", "/") + ".py" for function in used}
    assert files == set(PIPELINE)


def test_without_a_cache_no_picture_is_hashed(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cache_key", lambda *_: pytest.fail("read all pictures"))
    calibrate(encoder(), tmp_path / "out.onnx", [pictures()], QUICK)


def test_cache_is_used_and_a_stale_one_refused(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, boxes) = encoder(), pictures()
    cache, out = tmp_path / "cache.npz", tmp_path / "out.onnx"
    first = calibrate(model, out, [(images, boxes)], CalibrationSettings(crops=32, check_crops=4), cache=cache)
    monkeypatch.setattr(module, "spectra", lambda *_: pytest.fail("measured again"))
    again = calibrate(model, out, [(images, boxes)], CalibrationSettings(crops=32, check_crops=4, batch=3), cache=cache)
    assert first.document["layers"] == again.document["layers"]
    other = calibrate(
        model, out, [(images, boxes)], CalibrationSettings(crops=32, check_crops=4, observer="max"), cache=cache
    )
    assert other.document["layers"] != again.document["layers"]

    def refused(what: str, **changes: Any) -> None:
        settings = CalibrationSettings(**{"crops": 32, "check_crops": 4, **changes})
        with pytest.raises(InputError, match=rf"cache\.npz: a stale cache, .*{what}"):
            calibrate(model, out, [(images, boxes)], settings, cache=cache)
        with pytest.raises(InputError, match=rf"cache\.npz: a stale cache, .*{what}"):
            forecast(model, out, [(images, boxes)], settings, cache=cache)

    refused("the settings", exclude=("fc2",))
    encoder(steep=9.0)
    refused("the model")
    encoder()
    picture = images / "3.png"
    picture.write_bytes((images / "4.png").read_bytes())
    refused("the boxes or pictures")
    monkeypatch.setattr("mal_trt.calibration.cache.PIPELINE", ("geometry/boxes.py",))
    refused("crop pipeline")
    cache.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a calibration cache"):
        calibrate(model, out, [(images, boxes)], QUICK, cache=cache)


def test_interrupted_run_goes_on_from_its_cache(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, boxes) = encoder(), pictures()
    cache, out = tmp_path / "cache.npz", tmp_path / "out.onnx"
    settings = CalibrationSettings(crops=32, check_crops=4)
    tried: list[str] = []
    original = module.Cache.store_cost

    def stop(self: Any, how: str, cost: Any) -> None:
        original(self, how, cost)
        tried.append(cost.layer)
        if len(tried) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Cache, "store_cost", stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, out, [(images, boxes)], settings, cache=cache)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    report = calibrate(model, out, [(images, boxes)], settings, cache=cache)
    assert sorted(tried) == sorted(FC)  # each layer once, over both runs
    straight = calibrate(model, tmp_path / "straight.onnx", [(images, boxes)], settings)
    assert report.document == straight.document
    assert out.read_bytes() == (tmp_path / "straight.onnx").read_bytes()


def test_bad_data(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    out = tmp_path / "out.onnx"
    with pytest.raises(InputError, match="36 usable boxes, 768 wanted"):
        calibrate(model, out, [(images, boxes)])
    for picture in list(images.iterdir())[1:]:
        picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"only \d of 32 crops can be used \(\d+ could not be read, 0 are of one"):
        calibrate(model, out, [(images, boxes)], QUICK)
    images, boxes = pictures(dark=True)
    with pytest.raises(InputError, match=r"only 0 of 32 crops .* 32 are of one colour"):
        calibrate(model, out, [(images, boxes)], QUICK)
    boxes.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(NothingDone, match="no boxes in it, so none was used"):
        calibrate(model, out, [(images, boxes)], QUICK)
    assert not out.exists()


def test_bad_models(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, sources = encoder(), [pictures()]
    out = tmp_path / "out.onnx"
    calibrate(model, out, sources, QUICK)
    with pytest.raises(InputError, match=r"out\.onnx: quantised already \(int8\)"):
        calibrate(out, tmp_path / "again.onnx", sources, QUICK)
    foreign = onnx.load(model)
    for node in foreign.graph.node:
        node.name = ""
    onnx.save(foreign, model)
    with pytest.raises(InputError, match="no linear layer of an encoder"):
        calibrate(model, out, sources, QUICK)
    del foreign.metadata_props[:]
    onnx.save(foreign, model)
    with pytest.raises(InputError, match="without mal-trt's"):
        calibrate(model, out, sources, QUICK)
    model.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="not an ONNX file"):
        calibrate(model, out, sources, QUICK)
    with pytest.raises(RunError, match=r"blocks\.1\.mlp\.fc1/MatMul: NaN among its inputs"):
        calibrate(encoder(poison=True), out, sources, QUICK)
    half = encoder(opset=17)
    with pytest.raises(InputError, match="opset 17 cannot hold FP8 values; export with --opset 19"):
        calibrate(half, out, sources, CalibrationSettings("fp8", crops=32, check_crops=4))
    with pytest.raises(InputError, match="opset 17 cannot hold FP16 scales; export with --opset 19"):
        calibrate(half, out, sources, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "--precision int4"),
        ({"observer": "mean"}, "--observer mean"),
        ({"layers": ("linear", "attention")}, "--layers attention"),
        ({"crops": 3}, "--crops 3"),
        ({"check_crops": 0}, "--check-crops 0"),
        ({"exclude": "stem"}, r"--exclude stem: in Python a sequence of texts, such as \('stem',\)"),
        ({"layers": "linear"}, "--layers linear: in Python"),
        ({"max_miou_drop": float("nan")}, "--max-miou-drop nan"),
        *[({name: -1}, "expected . or more") for name in ("batch", "threads", "sensitivity_crops")],
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CalibrationSettings(**options)


def test_excluded_layers(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, sources = encoder(), [pictures()]
    settings = CalibrationSettings(
        crops=32, check_crops=4, sensitivity_crops=0, layers=("linear", "patch"), exclude=("fc2",)
    )
    report = calibrate(model, tmp_path / "out.onnx", sources, settings)
    names = [*rows(report.report_path)]
    assert names == ["student.backbone.patch_embed.proj/Conv", FC[0], FC[2]]
    with pytest.raises(InputError, match="--exclude fc3: no layer"):
        calibrate(model, tmp_path / "out.onnx", sources, CalibrationSettings(crops=32, check_crops=4, exclude=("fc3",)))
    with pytest.raises(InputError, match="leaves no layer"):
        calibrate(model, tmp_path / "out.onnx", sources, CalibrationSettings(crops=32, check_crops=4, exclude=("mlp",)))
