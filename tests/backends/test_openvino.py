"""The OpenVINO backend: ONNX Runtime's logits, in the precision that the processor has, for many callers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto

from mal_trt.backends import open_backend
from mal_trt.backends import openvino as module
from mal_trt.backends.openvino import PART, OpenVinoBackend
from mal_trt.base.errors import InputError, NanLogits, RunError
from mal_trt.base.processor import native_half, native_int8
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.labeler import Labeler
from small_graphs import CHANNELS, SIDE, contract, write_eight_bits, write_model

EXAMPLES = Path(__file__).parents[2] / "examples"
# One in 256 of numbers up to 9: bfloat16 keeps eight bits.
ROUNDED = 0.04


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3 * PART + 1, 3, SIDE, SIDE), np.uint8)


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without a half precision of its own."""
    monkeypatch.setattr(module, "native_half", lambda: None)


def test_runs_and_passes_the_grid_by_dimensions(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), threads=1, backend="openvino")
    assert isinstance(backend, OpenVinoBackend) and backend.contract == contract() and backend.outputs == ("logits",)
    for size, side in zip(SizeClass, (2, 4, 8), strict=True):
        logits = backend.run(crops, size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, crops[:, :1, ::4, ::4] / 255 + side, atol=ROUNDED)


def test_the_precision_is_the_processors_own(tmp_path: Path) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), backend="openvino")
    assert isinstance(backend, OpenVinoBackend)
    assert backend.precision == (native_half() or "fp32") and backend.provider == f"OpenVINO ({backend.precision})"


def test_without_one_it_is_single_precision(tmp_path: Path, crops: np.ndarray, single: None) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), threads=1, backend="openvino")
    assert backend.provider == "OpenVINO (fp32)"
    np.testing.assert_allclose(backend.run(crops, SizeClass.SMALL), crops[:, :1, ::4, ::4] / 255 + 2, atol=1e-5)


def test_float_input_baked_head_and_strided_input(tmp_path: Path, crops: np.ndarray, single: None) -> None:
    facts = contract(input_dtype="float32", head="medium")
    path = write_model(tmp_path / "m.onnx", facts, grid=False, dtype=TensorProto.FLOAT)
    backend = open_backend(path, threads=1, backend="openvino")
    strided = np.ascontiguousarray(crops.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for given in (crops, crops.astype(np.float32), strided):
        np.testing.assert_allclose(backend.run(given, SizeClass.SMALL), crops[:, :1, ::4, ::4] / 255, atol=1e-5)


def test_weights_choose_the_output(tmp_path: Path, crops: np.ndarray, single: None) -> None:
    gains = {"logits": 2.0, "logits_student": 1.0, "logits_teacher": 3.0}
    path = write_model(tmp_path / "m.onnx", contract(weights="mixed"), outputs=gains)
    backend = open_backend(path, threads=1, backend="openvino")
    assert set(backend.outputs) == set(gains)
    for weights, gain in ((None, 2), ("mixed", 2), ("student", 1), ("teacher", 3)):
        expected = crops[:, :1, ::4, ::4] / 255 * gain + 2
        np.testing.assert_allclose(backend.run(crops, SizeClass.SMALL, weights), expected, atol=1e-4)
    with pytest.raises(InputError, match="--weights mixed"):
        backend.run(crops, SizeClass.SMALL, "ema")


@pytest.mark.parametrize("lanes", [1, 2])
def test_many_callers_get_their_own_logits(tmp_path: Path, crops: np.ndarray, single: None, lanes: int) -> None:
    """More batches at once than there are infer requests, of several parts each: nobody waits for ever."""
    path = write_model(tmp_path / "m.onnx", contract())
    backend = open_backend(path, threads=1, backend="openvino", lanes=lanes)
    batches = [np.roll(crops, turn, axis=0)[: 1 + turn % len(crops)] for turn in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: backend.run(batch, SizeClass.SMALL), batches, timeout=60))
    for batch, logits in zip(batches, found, strict=True):
        np.testing.assert_allclose(logits, batch[:, :1, ::4, ::4] / 255 + 2, atol=1e-5)


class Broken:
    """An infer request that fails."""

    def start_async(self, feeds: dict[str, np.ndarray]) -> None:
        """Goes well."""

    def cancel(self) -> None:
        """There is nothing left to cancel."""

    def wait(self) -> None:
        raise RuntimeError("Exception from there:\nstd::bad_alloc")


def test_a_batch_that_fails_leaves_the_requests_free(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), threads=1, backend="openvino")
    assert isinstance(backend, OpenVinoBackend)
    count = backend._free.qsize()
    real = [backend._free.get() for _ in range(count)]
    for _ in range(count):
        backend._free.put(Broken())
    with pytest.raises(
        RunError, match=r"m\.onnx: OpenVINO failed on a batch of 13: .*bad_alloc; use a smaller .*that use much memory$"
    ) as caught:
        backend.run(crops, SizeClass.SMALL)
    assert "\n" not in str(caught.value) and backend._free.qsize() == count
    for request in real:
        backend._free.get()
        backend._free.put(request)
    assert len(backend.run(crops, SizeClass.SMALL)) == len(crops)


@pytest.mark.skipif(not native_int8(), reason="this processor has no VNNI")
def test_sums_of_eight_bits_do_not_overflow(tmp_path: Path) -> None:
    backend = open_backend(write_eight_bits(tmp_path / "int8.onnx"), backend="openvino")
    assert isinstance(backend, OpenVinoBackend)
    assert (backend.precision, backend.provider) == ("int8", "OpenVINO (int8)")
    logits = backend.run(np.full((2, 3, SIDE, SIDE), 255, np.uint8), SizeClass.LARGE)
    np.testing.assert_allclose(logits, CHANNELS, atol=0.1)


def test_where_they_could_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native_int8", lambda: False)
    assert "has no VNNI; run it with --backend onnxruntime" in refusal(write_eight_bits(tmp_path / "int8.onnx"))
    made_for_it = open_backend(write_eight_bits(tmp_path / "cpu.onnx", target="cpu"), backend="openvino")
    assert made_for_it.precision == "int8"
    assert "does not run fp8 models" in refusal(write_model(tmp_path / "m.onnx", contract(precision="fp8")))


def test_nan_and_closed(tmp_path: Path, crops: np.ndarray) -> None:
    path = write_model(tmp_path / "m.onnx", contract(), outputs={"logits": float("inf")})
    backend = open_backend(path, threads=1, backend="openvino")
    with pytest.raises(NanLogits, match="NaN"):
        backend.run(np.zeros_like(crops), SizeClass.SMALL)
    with pytest.raises(InputError, match="this model takes"):
        backend.run(crops[:, :, :32], SizeClass.SMALL)
    backend.close()
    with pytest.raises(RunError, match="closed"):
        backend.run(crops, SizeClass.SMALL)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_backend(path, backend="openvino")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_it_cannot_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "mal-trt export" in refusal(write_model(tmp_path / "a.onnx", None))
    assert "head_grid" in refusal(write_model(tmp_path / "b.onnx", contract(), grid=False))
    assert "uint8" in refusal(write_model(tmp_path / "c.onnx", contract(), dtype=TensorProto.FLOAT))
    assert "logits" in refusal(write_model(tmp_path / "d.onnx", contract(), first_output="logits_student"))
    path = write_model(tmp_path / "e.onnx", contract())
    whole = path.read_bytes()
    for damage in (b"", b"hello, not a model", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        assert "e.onnx" in refusal(path)
    assert capfd.readouterr().err == ""


def test_an_operator_it_lacks_is_told(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(write_model(tmp_path / "m.onnx", contract()))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Unheard", "elsewhere"
    onnx.save(model, tmp_path / "m.onnx")
    assert "OpenVINO cannot load it" in (said := refusal(tmp_path / "m.onnx")) and "--backend onnxruntime" in said


def test_masks_of_the_examples_are_nearly_those_of_onnxruntime() -> None:
    """A few pixels at the edges may change where products are rounded to eight bits."""
    document = json.loads((EXAMPLES / "boxes.json").read_text())
    ious = []
    with Labeler(threads=1, backend="onnxruntime") as reference, Labeler(threads=1, backend="openvino") as other:
        assert other.provider.startswith("OpenVINO")
        for image in document["images"]:
            boxes = [a["bbox"] for a in document["annotations"] if a["image_id"] == image["id"]]
            pairs = [one(EXAMPLES / "photos" / image["file_name"], boxes, "xywh").masks for one in (reference, other)]
            ious += [(a & b).sum() / (a | b).sum() for a, b in zip(*pairs, strict=True)]
    assert len(ious) == len(document["annotations"]) and np.mean(ious) > 0.985 and min(ious) > 0.93
