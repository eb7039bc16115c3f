"""What a runtime such as ONNX Runtime raises, as our errors: one line, with what to do where memory ran out."""

from __future__ import annotations

import re
from pathlib import Path

from mal_trt.base.errors import RunError, one_line
from mal_trt.cuda.driver import ADVICE

GPU_MEMORY = ADVICE["CUDA_ERROR_OUT_OF_MEMORY"]
HOST_MEMORY = "use a smaller --batch, or close other programs that use much memory"
# As ONNX Runtime's arena, cuDNN, cuBLAS, the driver and C++ say it.
OUT_OF_MEMORY = r"out of memory|failed to allocate memory|alloc_failed|bad_alloc|could not allocate"


def check_memory(title: str, path: Path, error: BaseException, on_gpu: bool = False) -> None:
    """RunError if a runtime, such as "ONNX Runtime", could not load a model file because memory ran out."""
    if _memory_ran_out(error):
        advice = GPU_MEMORY if on_gpu else HOST_MEMORY
        raise RunError(f"{path}: {title} cannot load it ({one_line(error)}); {advice}") from error


def failed_run(title: str, path: Path, count: int, error: BaseException, on_gpu: bool = False) -> RunError:
    """The error of a batch of `count` crops that a runtime could not run."""
    advice = f"; {GPU_MEMORY if on_gpu else HOST_MEMORY}" if _memory_ran_out(error) else ""
    return RunError(f"{path}: {title} failed on a batch of {count}: {one_line(error)}{advice}")


def _memory_ran_out(error: BaseException) -> bool:
    return re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE) is not None
