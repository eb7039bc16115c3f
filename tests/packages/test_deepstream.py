"""A DeepStream package: the keys of its config, its model, and its probes over a stand-in of pyds and nvinfer."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from command import call
from host_tensorrt import write_engine
from label_data import ModelWriter, blob_picture
from mal_trt import Labeler
from mal_trt.artifacts.contract import METADATA_KEY
from mal_trt.artifacts.onnxfile import read_contract, read_onnx
from mal_trt.artifacts.parity import check
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.backends.onnxruntime import OnnxRuntimeBackend
from mal_trt.geometry.boxes import SizeClass, extended_box
from mal_trt.geometry.rle import decode_rle
from mal_trt.packages.deepstream import DeepStreamOptions, package_deepstream
from pyds_double import Buffer, Element, Gst, Nvinfer, frame_meta, objects, pyds_module
from tiny_model import SIDE

# Keys of the group [property] that DeepStream's API reference lists for nvinfer both in 2021 (6.0) and in 9.1.
KEYS = (Path(__file__).parent.parent / "golden" / "nvinfer_keys.txt").read_text().split()
WIDTH, HEIGHT = 260, 180


package = partial(call, "package", "deepstream")


def keys(folder: Path) -> dict[str, str]:
    first, *lines = (folder / "config_infer_mal.txt").read_text().splitlines()
    assert first == "[property]"
    return dict(line.split("=", 1) for line in lines)


def attach(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Element, dict[int, Any], list[Any]]:
    """The package's own mal_masks.py on a stand-in of nvinfer; where buffers are to be entered, and what comes out."""
    batches: dict[int, Any] = {}
    monkeypatch.setitem(sys.modules, "pyds", pyds_module(batches))
    monkeypatch.delitem(sys.modules, "mal_trt.packages.deepstream_probes", raising=False)
    repository = ModuleType("gi.repository")
    repository.Gst = Gst  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gi", ModuleType("gi"))
    monkeypatch.setitem(sys.modules, "gi.repository", repository)
    spec = importlib.util.spec_from_file_location("mal_masks", folder / "mal_masks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    element, heard = Element(Nvinfer(folder / "config_infer_mal.txt")), []
    module.attach(element, WIDTH, HEIGHT, heard.append, **options)
    return element, batches, heard


def test_the_config(tiny_model: ModelWriter, tmp_path: Path) -> None:
    done = package(tiny_model(head="large"), "-o", tmp_path / "ds", "--batch", 8, "--gie-id", 5, "--on-gie-id", 3)
    assert done.exit_code == 0, done.output
    found = keys(tmp_path / "ds")
    assert [key for key in found if key not in KEYS] == []
    wanted = {
        "process-mode": "2",
        "network-type": "100",
        "output-tensor-meta": "1",
        "net-scale-factor": "1",
        "model-color-format": "0",
        "infer-dims": f"3;{SIDE};{SIDE}",
        "batch-size": "8",
        "gie-unique-id": "5",
        "operate-on-gie-id": "3",
        "onnx-file": "model.onnx",
    }
    assert {key: found[key] for key in wanted} == wanted
    listed = {line.strip() for line in done.stdout.splitlines()[1:]}
    assert listed == {path.name for path in (tmp_path / "ds").iterdir()}


@pytest.mark.parametrize("size", list(SizeClass))
def test_a_variable_head_is_baked_in(tiny_model: ModelWriter, tmp_path: Path, size: SizeClass) -> None:
    model = tiny_model(grid_gain=0.3)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 3, SIDE, SIDE)).astype(np.uint8)
    expected = OnnxRuntimeBackend(model, "cpu", 1).run(pixels, size)
    rows = {s: OnnxRuntimeBackend(model, "cpu", 1).run(pixels, s) for s in SizeClass}
    np.savez(
        parity_path(model), image=pixels, size_classes=[int(s) for s in SizeClass], logits=np.stack([*rows.values()])
    )
    package_deepstream(model, tmp_path / "ds", DeepStreamOptions(head=size.name.lower()))
    baked = tmp_path / "ds" / "model.onnx"
    contract = read_contract(baked)
    assert (contract.head, contract.input_dtype) == (size.name.lower(), "float32")
    assert read_onnx(baked).inputs == {"image": f"float32 [n, 3, {SIDE}, {SIDE}]"}
    backend = OnnxRuntimeBackend(baked, "cpu", 1)
    np.testing.assert_allclose(backend.run(pixels.astype(np.float32), size), expected, atol=1e-5)
    verdict = check(backend.run, parity_path(baked), contract, 4)
    assert verdict.passed and verdict.crops == 2 and (verdict.logit_error or 0) < 1e-5


def test_the_bundled_model(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    assert package("bundled", "-o", tmp_path / "ds", "-q").output == ""
    model = tmp_path / "ds" / "model.onnx"
    assert read_contract(model).input_dtype == "float32"
    backend = OnnxRuntimeBackend(model, "cpu", None)
    verdict = check(backend.run, parity_path(model), backend.contract, 4)
    assert verdict.passed and verdict.mask_iou > 0.995


def test_probes_make_the_masks_of_labeler(
    tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes whose crops nvinfer can cut as they are, inside the frame with even sides: the same bytes."""
    model = tiny_model(head="large")
    package_deepstream(model, tmp_path / "ds")
    contract = read_contract(model)
    rects = []
    for x in range(30, 160, 7):
        for y in range(24, 100, 5):
            for w, h in ((40, 30), (55.5, 41.25), (24, 60)):
                edges = extended_box((x, y, x + w, y + h), (contract.margin_rate / 2,) * 4)
                if not any(edge % 2 for edge in edges) and edges[2] <= WIDTH and edges[3] <= HEIGHT and min(edges) >= 0:
                    rects.append((float(x), float(y), w, h))
    assert len(rects) > 20
    pictures = [blob_picture(WIDTH, HEIGHT, seed) for seed in (1, 2)]
    element, batches, heard = attach(tmp_path / "ds", monkeypatch)
    half = len(rects) // 2
    buffer = Buffer([frame_meta(0, 7, rects[:half]), frame_meta(3, 9, rects[half:])], pictures)
    batches[hash(buffer)] = buffer
    element.push(buffer)
    assert [len(masks) for masks in heard] == [half, len(rects) - half]
    with Labeler(model, "cpu", refine="none") as labeler:
        for masks, picture, part in zip(heard, pictures, (rects[:half], rects[half:]), strict=True):
            expected = labeler(picture, part, "xywh")
            assert [mask.rle for mask in masks] == expected.rle
            assert [mask.quality for mask in masks] == list(expected.quality)
            assert [mask.bbox for mask in masks] == part
            assert sum(expected.areas) > 1000
    assert [(m.source, m.frame) for m in (heard[0][0], heard[1][0])] == [(0, 7), (3, 9)]
    assert [m.object_id for m in heard[0][:3]] == [10, 11, 12] and [m.class_id for m in heard[0][:3]] == [0, 1, 2]
    for frame, part in zip(buffer.frames, (rects[:half], rects[half:]), strict=True):
        now = [vars(item.rect_params) for item in objects(frame)]
        assert [tuple(rect.values()) for rect in now] == part, "what comes after nvinfer sees the detector's boxes"


def test_probes_at_the_border(tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects at and over the border, on odd pixels, of no size: cut inside the frame, masks inside their boxes."""
    model = tiny_model(head="large")
    package_deepstream(model, tmp_path / "ds")
    rects = [
        (-10.0, -8.0, 50.0, 40.0),
        (201.0, 133.0, 80.0, 60.0),
        (47.3, 51.7, 33.1, 21.9),
        (0.0, 0.0, 260.0, 180.0),
        (400.0, 20.0, 30.0, 30.0),
        (20.0, 20.0, 0.0, 10.0),
        (258.5, 178.5, 1.5, 1.5),
    ]
    element, batches, heard = attach(tmp_path / "ds", monkeypatch, threshold=0.4)
    picture = blob_picture(WIDTH, HEIGHT)
    buffer = Buffer([frame_meta(0, 0, rects)], [picture])
    for item in objects(buffer.frames[0])[4:6]:
        item.unique_component_id = 9  # nvinfer leaves these alone, whatever the probes think
    batches[hash(buffer)] = buffer
    element.push(buffer)
    (masks,) = heard
    assert [mask.bbox for mask in masks] == [rects[i] for i in (0, 1, 2, 3, 6)]
    for left, top, right, bottom in element.nvinfer.cut:
        assert not any(edge % 2 for edge in (left, top, right, bottom))
        assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT
    owns = [decode_rle(mask.rle).full(HEIGHT, WIDTH) for mask in masks]
    for own, mask in zip(owns, masks, strict=True):
        x, y, w, h = mask.bbox
        own = own.copy()
        own[max(int(y), 0) : int(y + h) + 1, max(int(x), 0) : int(x + w) + 1] = False
        assert not own.any(), f"a mask leaves its box {mask.bbox}"
    # Not the whole frame, whose blobs are smaller than a cell of the logits.
    with Labeler(model, "cpu", refine="none", threshold=0.4) as labeler:
        expected = labeler(picture, [(x, y, x + w, y + h) for x, y, w, h in rects[:3]])
    for own, wanted in zip(owns, expected, strict=False):
        assert wanted.sum() > 100 and np.logical_and(own, wanted).sum() / np.logical_or(own, wanted).sum() > 0.9
    assert [tuple(vars(item.rect_params).values()) for item in objects(buffer.frames[0])] == rects


def test_a_frame_that_never_comes_out_is_forgotten(
    tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_deepstream(tiny_model(head="large"), tmp_path / "ds")
    element, batches, heard = attach(tmp_path / "ds", monkeypatch)
    for number in range(300):
        lost = Buffer([frame_meta(0, number, [(10.0, 10.0, 40.0, 40.0)])], [])
        batches[hash(lost)] = lost
        element.probes["sink"](lost)
        del batches[hash(lost)]
    empty = Buffer([frame_meta(0, 1000, [])], [blob_picture(WIDTH, HEIGHT)])
    batches[hash(empty)] = empty
    element.push(empty)
    element.push(Buffer([], []))  # a buffer without a batch
    assert heard == []
    probes = element.probes["sink"]
    assert probes is not None
    from mal_trt.packages import deepstream_probes

    own = deepstream_probes.MalProbes(tmp_path / "ds", WIDTH, HEIGHT, heard.append)
    for number in range(300):
        again = Buffer([frame_meta(0, number, [(10.0, 10.0, 40.0, 40.0)])], [])
        batches[hash(again)] = again
        own.widen(again)
    assert len(own._waiting) == deepstream_probes.KEPT


def test_room_for_the_objects_of_a_crowded_frame(tiny_model: ModelWriter, tmp_path: Path) -> None:
    """nvinfer keeps the logits of each batch until their frame is let go, and stands still when it has no room."""
    model = tiny_model(head="large")
    for batch, rooms in ((1, 512), (16, 32), (500, 8)):
        package_deepstream(model, tmp_path / str(batch), DeepStreamOptions(batch=batch))
        assert keys(tmp_path / str(batch))["tensor-meta-pool-size"] == str(rooms)


def test_an_engine(tiny_model: ModelWriter, tmp_path: Path) -> None:
    onnx = tiny_model(head="large", dtype="float32")
    engine = write_engine(onnx, tmp_path / "m.engine", (1, 2, 6))
    package_deepstream(engine, tmp_path / "ds")
    found = keys(tmp_path / "ds")
    assert found["model-engine-file"] == "model.engine" and "onnx-file" not in found
    assert found["batch-size"] == "6"
    assert (tmp_path / "ds" / "model.engine").read_bytes() == engine.read_bytes()
    assert (tmp_path / "ds" / "model.engine.json").is_file()


def refused(tmp_path: Path, *arguments: object) -> str:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = package(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    return str(done.stderr)


def for_processors(model: Path, out: Path) -> Path:
    """A copy that says of itself what a file of `calibrate --target cpu` says."""
    onnx = pytest.importorskip("onnx")
    copy = onnx.load(model)
    for entry in copy.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"precision": "int8", "extra": {"target": "cpu"}})
    onnx.save(copy, out)
    return out


def test_what_is_refused(tiny_model: ModelWriter, tmp_path: Path) -> None:
    onnx, out = tiny_model(), tmp_path / "ds"
    (tmp_path / "there").mkdir()
    (tmp_path / "notes.onnx").write_text("no model")
    assert "exists" in refused(tmp_path, onnx, "-o", tmp_path / "there")
    assert "not an ONNX file" in refused(tmp_path, tmp_path / "notes.onnx", "-o", out)
    assert "two different ids" in refused(tmp_path, onnx, "-o", out, "--gie-id", 1)
    narrow = for_processors(onnx, tmp_path / "narrow.onnx")
    assert "which DeepStream cannot take" in refused(tmp_path, narrow, "-o", out)
    engine = write_engine(onnx, tmp_path / "m.engine")
    assert "takes uint8 and a grid" in refused(tmp_path, engine, "-o", out)
    assert "the package is for 9.0" in refused(tmp_path, engine, "-o", out, "--compute-capability", "9.0")
    later = write_engine(onnx, tmp_path / "later.engine", flags=("VERSION_COMPATIBLE",))
    assert "build it without" in refused(tmp_path, later, "-o", out)
    rtx = write_engine(onnx, tmp_path / "rtx.engine", flavor="tensorrt-rtx", compute_capabilities=("8.0+",))
    assert "TensorRT-RTX, which DeepStream cannot load" in refused(tmp_path, rtx, "-o", out)


def test_pixels_used_as_they_are(tiny_model: ModelWriter, tmp_path: Path) -> None:
    """A graph that reads uint8 in another way than to convert it is not touched."""
    onnx = pytest.importorskip("onnx")
    path = tiny_model(head="large")
    model = onnx.load(path)
    model.graph.node[0].input[0] = "same"
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["image"], ["same"]))
    onnx.save(model, path)
    assert "--input-dtype float32" in refused(tmp_path, path, "-o", tmp_path / "ds")


def test_without_onnx(tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model(head="large")
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = package(path, "-o", tmp_path / "ds")
    assert done.exit_code == 1 and 'pip install "mal-trt[calibrate]"' in done.stderr
    assert not (tmp_path / "ds").exists()


def test_the_contract_goes_along(tiny_model: ModelWriter, tmp_path: Path) -> None:
    package_deepstream(tiny_model(head="large"), tmp_path / "ds", DeepStreamOptions(gie_id=6))
    document = json.loads((tmp_path / "ds" / "contract.json").read_text())
    assert document["gie_id"] == 6 and document["mal_trt"]["thresholds"] == [0.5, 0.5, 0.5]
