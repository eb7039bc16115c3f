"""The backend of engines where a start or a run fails, and engines that it refuses; over the same doubles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from host_tensorrt import write_engine
from lane import crops
from mal_trt.artifacts.manifest import Profile, manifest_path
from mal_trt.backends import open_backend
from mal_trt.backends.tensorrt import open_engine
from mal_trt.base.errors import InputError, NanLogits, RunError
from mal_trt.cuda.driver import CudaError
from mal_trt.geometry.boxes import SizeClass
from opened_engine import Opened
from tiny_model import write_tiny_model

LARGE = SizeClass.LARGE


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("method", ["allocate", "allocate_pinned", "create_event", "create_stream", "synchronize"])
def test_a_failing_start_leaves_nothing(opened: Opened, method: str, nth: int) -> None:
    opened.use()
    opened.driver.fail_on(method, nth, "CUDA_ERROR_OUT_OF_MEMORY")
    living: dict[str, int] = {}
    closed = opened.driver.close

    def close() -> None:
        living.update(opened.driver.living)
        opened.faults.contexts.clear()
        assert not opened.faults.engines  # the engine goes before the GPU's context
        closed()

    opened.driver.close = close  # type: ignore[method-assign]
    onnx = write_tiny_model(opened.folder / "tiny.onnx", weights="mixed")
    engine = write_engine(onnx, opened.folder / "tiny.engine")
    try:
        open_engine(engine).close()
    except CudaError as error:
        assert error.code == "CUDA_ERROR_OUT_OF_MEMORY"
    assert living == dict.fromkeys(living, 0) != {}


def test_out_of_memory(opened: Opened) -> None:
    with pytest.raises(CudaError, match="OUT_OF_MEMORY"):
        opened(limit=1 << 10).run(crops(4), LARGE)
    opened.use()
    opened.faults.refuse.add("create_execution_context")
    with pytest.raises(RunError, match=r"tiny\.engine: TensorRT 10\.3\.0 cannot set the engine up: memory ran out; .*"):
        open_engine(opened.folder / "tiny.engine")


def test_a_failing_run_says_why_and_the_next_goes_on(opened: Opened) -> None:
    backend = opened()
    opened.faults.failing = 1
    with pytest.raises(RunError, match=r"failed on a batch of 2: IExecutionContext::enqueueV3: .*illegal address"):
        backend.run(crops(2), LARGE)
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    np.testing.assert_array_equal(backend.run(crops(2), LARGE), cpu.run(crops(2), LARGE))


def test_a_lost_gpu(opened: Opened) -> None:
    backend = opened()
    opened.driver.fail_on("synchronize", code="CUDA_ERROR_ILLEGAL_ADDRESS", lasting=True)
    for _ in range(2):
        with pytest.raises(CudaError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            backend.run(crops(2), LARGE)
    backend.close()


def test_nan(opened: Opened) -> None:
    with pytest.raises(NanLogits, match=r"tiny\.engine: the engine gave NaN"):
        opened({"gain": float("nan")}).run(crops(2), LARGE)


@pytest.mark.parametrize("image", [crops(1)[:, :, :32], crops(1)[0], crops(1).astype(np.float32)])
def test_batches_of_the_wrong_kind(opened: Opened, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="this model takes"):
        opened().run(image, LARGE)


def test_engines_that_are_refused(opened: Opened, tmp_path: Path) -> None:
    def refusal(**engine: Any) -> str:
        with pytest.raises(InputError) as caught:
            opened(engine=engine)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "bound to the GPUs they were built for" in refusal(compute_capabilities=("7.5",))
    assert "bound to the TensorRT that built them" in refusal(version="10.9.0")
    assert "a TensorRT of its own" in refusal(flags=("VERSION_COMPATIBLE",))
    assert "no profile for [N, 3, 64, 64] with head_grid 4" in refusal(profiles=[Profile((1, 2, 4), 2)] * 3)
    backend = opened()
    content = (tmp_path / "tiny.engine").read_bytes()
    (tmp_path / "tiny.engine").write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="SHA-256 differs"):
        open_engine(tmp_path / "tiny.engine")
    backend.close()


def test_a_plan_the_library_refuses(opened: Opened, tmp_path: Path) -> None:
    opened.use()
    (tmp_path / "text.onnx").write_bytes((write_tiny_model(tmp_path / "tiny.onnx")).read_bytes())
    engine = write_engine(tmp_path / "tiny.onnx", tmp_path / "tiny.engine")
    plan = engine.read_bytes()
    broken = plan[:200] + bytes(len(plan) - 200)
    document = manifest_path(engine).read_text().replace(_sha(plan), _sha(broken))
    engine.write_bytes(broken)
    manifest_path(engine).write_text(document)
    with pytest.raises(
        InputError, match=r"tiny\.engine: TensorRT 10\.3\.0 cannot load it: the file is no plan of this"
    ):
        open_engine(engine)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({"head": "large"}, {"head": "dynamic"}, "takes image and gives logits, but its manifest"),
        ({}, {"head": "large"}, "takes head_grid, image and gives logits"),
        ({}, {"input_dtype": "float32"}, "its `image` is uint8, not float"),
        ({}, {"input_size": 96}, r"no profile for \[N, 3, 96, 96\]"),
    ],
)
def test_an_engine_that_is_not_what_its_manifest_says(
    opened: Opened, model: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    from dataclasses import replace

    from mal_trt.artifacts.onnxfile import read_contract

    onnx = write_tiny_model(opened.folder / "tiny.onnx", **model)
    contract = replace(read_contract(onnx), **changes)
    with pytest.raises(InputError, match=message):
        opened(model, engine={"contract": contract, "profiles": [Profile((1, 2, 4), n) for n in (2, 4, 8)]})


def _sha(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
