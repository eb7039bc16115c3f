"""A Triton repository: its configs in Triton's own schema, its Python model over a stand-in of the backend."""

from __future__ import annotations

import json
import runpy
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import call
from host_tensorrt import write_engine
from label_data import DataWriter, ModelWriter
from mal_trt import Labeler
from mal_trt.base.errors import InputError
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.labelling.run import label
from mal_trt.packages.triton import TritonOptions, package_triton
from tiny_model import SIDE
from triton_backend import serve
from triton_config import parse_config

package = partial(call, "package", "triton")


def config(repository: Path, name: str) -> Any:
    parsed = parse_config((repository / name / "config.pbtxt").read_text())
    assert parsed.name == name
    return parsed


def test_batched_crops(tiny_model: ModelWriter, tmp_path: Path) -> None:
    done = package(tiny_model(head="large"), "-o", tmp_path / "repo", "--batch", 8, "--instances", 2, "--delay", 300)
    assert done.exit_code == 0, done.output
    crops = config(tmp_path / "repo", "mal_crops")
    assert (crops.backend, crops.max_batch_size) == ("onnxruntime", 8)
    assert [list(entry.dims) for entry in crops.input] == [[3, SIDE, SIDE]]
    assert [(e.name, list(e.dims)) for e in crops.output] == [("logits", [1, SIDE // 4, SIDE // 4])]
    assert crops.instance_group[0].count == 2
    assert crops.dynamic_batching.max_queue_delay_microseconds == 300
    assert [(w.batch_size, list(w.inputs["image"].dims)) for w in crops.model_warmup] == [
        (1, [3, SIDE, SIDE]),
        (8, [3, SIDE, SIDE]),
    ]
    labeler = config(tmp_path / "repo", "mal_labeler")
    assert (labeler.backend, labeler.max_batch_size, labeler.parameters["batch"].string_value) == ("python", 0, "8")
    listed = {line.strip() for line in done.stdout.splitlines()[1:]}
    written = {p.relative_to(tmp_path / "repo").as_posix() for p in (tmp_path / "repo").rglob("*") if p.is_file()}
    assert listed == written


def test_a_grid_of_the_head_is_not_batched(tiny_model: ModelWriter, tmp_path: Path) -> None:
    package_triton([tiny_model()], tmp_path / "repo")
    crops = config(tmp_path / "repo", "mal_crops")
    assert crops.max_batch_size == 0 and not crops.HasField("dynamic_batching")
    assert {e.name: list(e.dims) for e in crops.input} == {
        "image": [-1, 3, SIDE, SIDE],
        "head_grid": [1, 1, -1, -1],
    }
    assert [list(w.inputs["head_grid"].dims) for w in crops.model_warmup] == [[1, 1, g, g] for g in (2, 4, 8)]


def test_engines_of_several_cards(tiny_model: ModelWriter, tmp_path: Path) -> None:
    onnx = tiny_model(head="large")
    engines = [
        write_engine(onnx, tmp_path / f"{card}.engine", (1, 2, most), compute_capabilities=(card,))
        for card, most in (("8.6", 4), ("9.0", 6))
    ]
    package_triton(engines, tmp_path / "repo")
    crops = config(tmp_path / "repo", "mal_crops")
    assert (crops.platform, crops.max_batch_size) == ("tensorrt_plan", 4)
    assert dict(crops.cc_model_filenames) == {"8.6": "model_8.6.plan", "9.0": "model_9.0.plan"}
    assert crops.default_model_filename == "model_8.6.plan"
    for card, engine in zip(("8.6", "9.0"), engines, strict=True):
        assert (tmp_path / "repo" / "mal_crops" / "1" / f"model_{card}.plan").read_bytes() == engine.read_bytes()
    assert crops.instance_group[0].kind == crops.instance_group[0].KIND_GPU


def test_an_engine_for_many_cards_is_the_one_for_cards_without_their_own(
    tiny_model: ModelWriter, tmp_path: Path
) -> None:
    onnx = tiny_model(head="large")
    own = write_engine(onnx, tmp_path / "own.engine")
    wide = write_engine(onnx, tmp_path / "wide.engine", compute_capabilities=("8.0+",))
    package_triton([own, wide], tmp_path / "repo")
    crops = config(tmp_path / "repo", "mal_crops")
    assert dict(crops.cc_model_filenames) == {"8.6": "model_8.6.plan"}
    assert crops.default_model_filename == "model_8.0_up.plan"


def test_an_engine_with_a_profile_for_each_size(tiny_model: ModelWriter, tmp_path: Path) -> None:
    package_triton([write_engine(tiny_model(), tmp_path / "m.engine")], tmp_path / "repo")
    assert list(config(tmp_path / "repo", "mal_crops").instance_group[0].profile) == ["0", "1", "2"]


@pytest.mark.parametrize("head", ["large", "dynamic"])
def test_the_python_model_is_label(
    tiny_model: ModelWriter, data_set: DataWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    model = tiny_model(head=head, grid_gain=0.3 if head == "dynamic" else 0.0)
    pictures, boxes = data_set(pictures=2, size=(260, 180))
    label(images=pictures, boxes=boxes, out=tmp_path / "labels.json", model=model, device="cpu")
    labels = json.loads((tmp_path / "labels.json").read_text())
    package_triton([model], tmp_path / "repo", TritonOptions(batch=5))
    server = serve(tmp_path / "repo", monkeypatch)
    served = server.load("mal_labeler")
    compared = 0
    for image in labels["images"]:
        records = [r for r in labels["annotations"] if r["image_id"] == image["id"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in records)]
        content = np.frombuffer((pictures / image["file_name"]).read_bytes(), np.uint8)
        answer = server.infer(served, image=content, boxes=np.array(corners, np.float64))
        assert [json.loads(text) for text in answer["rle"]] == [r["segmentation"] for r in records]
        assert answer["quality"].dtype == np.float32
        np.testing.assert_allclose(answer["quality"], [r["quality"]["score"] for r in records], atol=1e-6)
        compared += len(records)
    assert compared > 20
    assert {name for name, _, _ in server.calls} == {"mal_crops"}
    assert max(batch for _, _, batch in server.calls) == 5
    served.finalize()


def test_the_bundled_model_is_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    examples = Path(str(__import__("mal_trt.examples", fromlist=["x"]).__path__[0]))
    label(
        images=examples / "photos",
        boxes=examples / "boxes.json",
        out=tmp_path / "labels.json",
        model="bundled",
        device="cpu",
    )
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert package("bundled", "-o", tmp_path / "repo", "--quiet").output == ""
    server = serve(tmp_path / "repo", monkeypatch)
    served = server.load("mal_labeler")
    for image in labels["images"]:
        records = [r for r in labels["annotations"] if r["image_id"] == image["id"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in records)]
        content = np.frombuffer((examples / "photos" / image["file_name"]).read_bytes(), np.uint8)
        answer = server.infer(served, image=content, boxes=np.array(corners, np.float64))
        assert [json.loads(text) for text in answer["rle"]] == [r["segmentation"] for r in records]


def test_bad_requests_get_their_own_error(
    tiny_model: ModelWriter, data_set: DataWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, _ = data_set(pictures=1)
    package_triton([tiny_model(head="large")], tmp_path / "repo")
    server = serve(tmp_path / "repo", monkeypatch)
    served = server.load("mal_labeler")
    good = np.frombuffer(next(pictures.iterdir()).read_bytes(), np.uint8)
    box = np.array([[5.0, 5.0, 40.0, 40.0]])
    with pytest.raises(RuntimeError, match="image: "):
        server.infer(served, image=good[:50], boxes=box)
    with pytest.raises(RuntimeError, match=r"box 0: .* no width or height"):
        server.infer(served, image=good, boxes=box[:, [2, 1, 0, 3]])
    assert len(server.infer(served, image=good, boxes=np.zeros((0, 4)))["rle"]) == 0
    assert len(server.infer(served, image=good, boxes=box)["rle"]) == 1
    server.broken = "out of memory"
    with pytest.raises(RuntimeError, match="mal_crops: out of memory"):
        server.infer(served, image=good, boxes=box)


def test_the_client(
    tiny_model: ModelWriter, data_set: DataWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """client.py with a stand-in of tritonclient.http that hands its tensors to the Python model."""
    pictures, _ = data_set(pictures=1)
    model = tiny_model(head="large")
    package_triton([model], tmp_path / "repo")
    assert len((tmp_path / "repo" / "client.py").read_text().splitlines()) <= 30
    server = serve(tmp_path / "repo", monkeypatch)
    served = server.load("mal_labeler")

    class InferInput:
        def __init__(self, name: str, shape: list[int], kind: str) -> None:
            self.name, self.shape, self.kind = name, shape, kind

        def set_data_from_numpy(self, value: np.ndarray) -> None:
            assert list(value.shape) == self.shape
            assert value.dtype == {"UINT8": np.uint8, "FP64": np.float64}[self.kind]
            self.value = value

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "localhost:8000"

        def infer(self, name: str, tensors: list[InferInput]) -> Any:
            assert name == "mal_labeler"
            answer = server.infer(served, **{tensor.name: tensor.value for tensor in tensors})
            answer["rle"] = np.array([text.encode() for text in answer["rle"]], np.object_)  # as it comes over the wire
            result = ModuleType("result")
            result.as_numpy = answer.__getitem__  # type: ignore[attr-defined]
            return result

    http = ModuleType("tritonclient.http")
    http.InferInput, http.InferenceServerClient = InferInput, Client  # type: ignore[attr-defined]
    parent = ModuleType("tritonclient")
    parent.http = http  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", parent)
    monkeypatch.setitem(sys.modules, "tritonclient.http", http)
    (picture,) = pictures.iterdir()
    monkeypatch.setattr(sys, "argv", ["client.py", str(picture), "6,10,34,30", "46,10,74.5,30"])
    runpy.run_path(str(tmp_path / "repo" / "client.py"), run_name="__main__")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with Labeler(model, "cpu") as labeler, Image.open(picture) as image:
        expected = labeler(image, [[6, 10, 34, 30], [46, 10, 74.5, 30]])
    assert [line["segmentation"] for line in lines] == expected.rle


def refused(tmp_path: Path, *arguments: object) -> str:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = package(*arguments)
    assert done.exit_code == 2, done.output
    said = [line for line in done.stderr.splitlines() if ": exporting it, once, to " not in line]
    assert len(said) == 1 and said[0].startswith("error: ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    return str(done.stderr)


def test_what_is_refused(tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx, repo = tiny_model(head="large"), tmp_path / "repo"
    (tmp_path / "there").mkdir()
    (tmp_path / "notes.onnx").write_text("no model")
    (tmp_path / "weights.pth").write_bytes(b"PK")
    assert "exists" in refused(tmp_path, onnx, "-o", tmp_path / "there")
    assert "folder does not exist" in refused(tmp_path, onnx, "-o", tmp_path / "a" / "b")
    assert "not an ONNX file" in refused(tmp_path, tmp_path / "notes.onnx", "-o", repo)
    assert "no such model file" in refused(tmp_path, tmp_path / "nowhere.onnx", "-o", repo)
    assert "export" in refused(tmp_path, tmp_path / "weights.pth", "-o", repo)
    rtx = write_engine(onnx, tmp_path / "rtx.engine", flavor="tensorrt-rtx", compute_capabilities=("8.0+",))
    assert "TensorRT-RTX, which Triton cannot load" in refused(tmp_path, rtx, "-o", repo)
    engine = write_engine(onnx, tmp_path / "m.engine")
    assert "takes up to 4" in refused(tmp_path, engine, "-o", repo, "--batch", 5)
    assert "already" in refused(tmp_path, engine, engine, "-o", repo)
    assert "all of them are engines" in refused(tmp_path, engine, onnx, "-o", repo)
    padded = write_engine(onnx, tmp_path / "p.engine", (2, 2, 4))
    assert "no batch below 2" in refused(tmp_path, padded, "-o", repo)
    other = write_engine(onnx, tmp_path / "o.engine", compute_capabilities=("9.0",), onnx_sha256="1" * 64)
    assert "another model" in refused(tmp_path, engine, other, "-o", repo)
    bare = write_engine(onnx, tmp_path / "s.engine", flags=("STRIP_PLAN",))
    assert "without its weights" in refused(tmp_path, bare, "-o", repo)
    assert "the package is for 9.0" in refused(tmp_path, engine, "-o", repo, "--compute-capability", "9.0")
    assert "8.6" in refused(tmp_path, engine, "-o", repo, "--compute-capability", "sm_90")
    card = Machine("13.0", (Gpu("H100", "9.0", 1 << 36, None),), "")
    monkeypatch.setattr("mal_trt.packages.source.find_gpus", lambda **_: card)
    assert "this machine's GPU is 9.0" in refused(tmp_path, engine, "-o", repo)
    assert package(engine, "-o", repo, "--compute-capability", "8.6", "--quiet").exit_code == 0


def test_a_full_disk_leaves_nothing(tiny_model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    model = tiny_model(head="large")
    monkeypatch.setattr("mal_trt.packages.folder.shutil.copyfile", full)
    done = package(model, "-o", tmp_path / "repo")
    assert done.exit_code == 1 and "No space left" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx"}


def test_mixed_weights(tiny_model: ModelWriter, tmp_path: Path) -> None:
    model = tiny_model(head="large", weights="mixed")
    package_triton([model], tmp_path / "repo")
    names = [entry.name for entry in config(tmp_path / "repo", "mal_crops").output]
    assert names == ["logits", "logits_student", "logits_teacher"]
    with pytest.raises(InputError, match="exists"):
        package_triton([model], tmp_path / "repo")
