"""The ONNX Runtime backend on tiny graphs built here: contract, head grid, outputs and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mal_trt.artifacts.models import resolve_model
from mal_trt.backends import open_backend
from mal_trt.backends.onnxruntime import PART, OnnxRuntimeBackend
from mal_trt.base.errors import InputError, RunError
from mal_trt.geometry.boxes import SizeClass

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto

from small_graphs import CHANNELS, SIDE, contract, write_eight_bits, write_model


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 3, SIDE, SIDE), np.uint8)


def test_runs_and_passes_the_grid_by_dimensions(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), device="cpu", threads=1)
    assert backend.contract == contract()
    assert backend.provider == "CPUExecutionProvider"
    assert backend.outputs == ("logits",)
    for size, side in zip(SizeClass, (2, 4, 8), strict=True):
        logits = backend.run(crops, size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, crops[:, :1, ::4, ::4] / 255 + side, atol=1e-6)


def test_strided_input_is_read_as_it_looks(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), device="cpu", threads=1)
    channels_last = np.ascontiguousarray(crops.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(backend.run(channels_last, SizeClass.LARGE), backend.run(crops, SizeClass.LARGE))


def test_float_input_and_baked_head(tmp_path: Path, crops: np.ndarray) -> None:
    facts = contract(input_dtype="float32", head="medium")
    backend = open_backend(write_model(tmp_path / "m.onnx", facts, grid=False, dtype=TensorProto.FLOAT), threads=1)
    from_bytes = backend.run(crops, SizeClass.SMALL)
    np.testing.assert_allclose(from_bytes, crops[:, :1, ::4, ::4] / 255, atol=1e-6)
    np.testing.assert_array_equal(from_bytes, backend.run(crops.astype(np.float32), SizeClass.LARGE))


def test_weights_choose_the_output(tmp_path: Path, crops: np.ndarray) -> None:
    gains = {"logits": 2.0, "logits_student": 1.0, "logits_teacher": 3.0}
    path = write_model(tmp_path / "m.onnx", contract(weights="mixed"), outputs=gains)
    backend = open_backend(path, device="cpu", threads=1)
    assert set(backend.outputs) == set(gains)
    unit = crops[:, :1, ::4, ::4] / 255
    for weights, gain in ((None, 2), ("mixed", 2), ("student", 1), ("teacher", 3)):
        np.testing.assert_allclose(backend.run(crops, SizeClass.SMALL, weights), unit * gain + 2, atol=1e-5)


def test_weights_the_model_lacks(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract(weights="student")), threads=1)
    backend.run(crops, SizeClass.SMALL, "student")
    for weights in ("teacher", "mixed", "ema"):
        with pytest.raises(InputError, match="--weights mixed"):
            backend.run(crops, SizeClass.SMALL, weights)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((3, SIDE, SIDE), np.uint8),
        np.zeros((1, 3, SIDE, SIDE), np.float32),
    ],
)
def test_batch_of_the_wrong_kind(tmp_path: Path, batch: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), threads=1)
    with pytest.raises(InputError, match="this model takes"):
        backend.run(batch, SizeClass.SMALL)


def test_nan_logits_fail_the_run(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract(), outputs={"logits": float("nan")}), threads=1)
    with pytest.raises(RunError, match="NaN"):
        backend.run(crops, SizeClass.SMALL)


def test_closed(tmp_path: Path, crops: np.ndarray) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", contract()), threads=1)
    backend.close()
    with pytest.raises(RunError, match="closed"):
        backend.run(crops, SizeClass.SMALL)


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        open_backend(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_foreign_model(tmp_path: Path) -> None:
    message = refusal(write_model(tmp_path / "m.onnx", None))
    assert "m.onnx" in message and "mal-trt export" in message


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_corrupt_file(tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "m.onnx", contract())
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello, not a model", "cut": whole[: len(whole) // 2]}[damage])
    assert "m.onnx" in refusal(path)
    assert capfd.readouterr().err == ""


def test_graph_against_its_metadata(tmp_path: Path) -> None:
    assert "head_grid" in refusal(write_model(tmp_path / "a.onnx", contract(), grid=False))
    assert "head_grid" in refusal(write_model(tmp_path / "b.onnx", contract(head="small")))
    assert "uint8" in refusal(write_model(tmp_path / "c.onnx", contract(), dtype=TensorProto.FLOAT))
    assert "logits" in refusal(write_model(tmp_path / "d.onnx", contract(), first_output="logits_student"))


def test_paths_and_options(tmp_path: Path) -> None:
    assert "absent.onnx" in refusal(tmp_path / "absent.onnx")
    assert "a folder, not a model file" in refusal(tmp_path)
    other = tmp_path / "model.bin"
    other.write_bytes(b"x")
    assert "mal-trt export" in refusal(other)
    path = write_model(tmp_path / "m.onnx", contract())
    assert "gpu0" in refusal(path, device="gpu0")
    assert "threads" in refusal(path, threads=0)


def test_cuda_is_never_silently_the_cpu(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "m.onnx", contract())
    if open_backend(path, device="auto", threads=1).provider == "CUDAExecutionProvider":
        assert open_backend(path, device="cuda").provider == "CUDAExecutionProvider"
    else:
        message = refusal(path, device="cuda")
        assert "CPUExecutionProvider" in message and "--device cpu" in message
    assert capfd.readouterr().err == ""


def test_eight_bits_are_computed_as_they_are_written(tmp_path: Path) -> None:
    """Large weights on large inputs: the runtime's own 8-bit kernels overflow in sums of two, on processors without
    VNNI."""
    path, channels = write_eight_bits(tmp_path / "int8.onnx"), CHANNELS
    backend = open_backend(path, "cpu")
    logits = backend.run(np.full((2, 3, SIDE, SIDE), 255, np.uint8), SizeClass.LARGE)
    np.testing.assert_allclose(logits, channels, atol=0.1)


@pytest.mark.parametrize(("target", "kernels"), [("cpu", True), (None, False), ("tensorrt", False)])
def test_kernels_of_8_bits_run_files_made_for_processors_alone(
    tmp_path: Path, target: str | None, kernels: bool
) -> None:
    extra = {} if target is None else {"target": target}
    path = write_model(tmp_path / "m.onnx", contract(precision="int8", extra=extra))
    backend = OnnxRuntimeBackend(path, "cpu", 1)
    assert backend._session is not None
    options = backend._session.get_session_options()
    if kernels:
        with pytest.raises(RuntimeError, match="disable_quant_qdq"):
            options.get_session_config_entry("session.disable_quant_qdq")
    else:
        assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_a_processor_computes_a_batch_in_parts_that_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    backend = OnnxRuntimeBackend(resolve_model("bundled"), "cpu", 1)
    crops = np.random.default_rng(0).integers(0, 255, (2 * PART + 1, 3, 192, 192)).astype(np.uint8)
    sizes: list[int] = []
    session = backend._session

    class Counts:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(len(feeds["image"]))
            return session.run(outputs, feeds)  # type: ignore[union-attr]

    backend._session = Counts()  # type: ignore[assignment]
    found = backend.run(crops, SizeClass.LARGE)
    assert sizes == [PART, PART, 1]
    feeds: dict[str, np.ndarray] = {"image": crops}
    np.testing.assert_array_equal(found, session.run(["logits"], feeds)[0])  # type: ignore[union-attr]


def test_a_processor_without_memory_is_told_nothing_of_a_gpu(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(write_model(tmp_path / "m.onnx", contract()), "cpu", 1)

    class Full:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            raise RuntimeError("std::bad_alloc")

    backend._session = Full()  # type: ignore[assignment]
    with pytest.raises(RunError, match=r"batch of 2: std::bad_alloc; use a smaller --batch, or close .*much memory$"):
        backend.run(np.zeros((2, 3, SIDE, SIDE), np.uint8), SizeClass.LARGE)
