"""What a runtime raised, as our errors: one line, with what to do where memory ran out."""

from __future__ import annotations

import re
from pathlib import Path

from mal_trt.base.errors import RunError
from mal_trt.cuda.driver import ADVICE

MEMORY_ADVICE = ADVICE["CUDA_ERROR_OUT_OF_MEMORY"]
# As ONNX Runtime's arena, cuDNN, cuBLAS, the driver and C++ say it.
OUT_OF_MEMORY = r"out of memory|failed to allocate memory|alloc_failed|bad_alloc|could not allocate"


def failed_run(title: str, path: Path, count: int, error: BaseException) -> RunError:
    """The error of a batch of so many crops that a runtime, such as "ONNX Runtime", could not run."""
    advice = f"; {MEMORY_ADVICE}" if memory_ran_out(error) else ""
    return RunError(f"{path}: {title} failed on a batch of {count}: {one_line(error)}{advice}")


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error of a runtime is about memory."""
    return re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE) is not None


def one_line(error: BaseException) -> str:
    """An error's text, white space and length cut."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
