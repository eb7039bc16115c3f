"""A test double of ONNX Runtime's CUDA provider: the CPU provider plays it, over a HostDriver's memory and streams.

`from host_onnxruntime import play_cuda`. What is bound to "cuda" memory is read and written when the work queued on
`user_compute_stream` is done, as late as the HostDriver lets it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from host_cuda import HostDriver

CUDA = "CUDAExecutionProvider"
Session = onnxruntime.InferenceSession  # the real one


class HostSession:
    """A session whose CUDA provider is the CPU's. options: those the CUDA provider was given."""

    falls_back = False  # as where the CUDA libraries do not load
    failing = False

    def __init__(self, driver: HostDriver, path: str, settings: Any, providers: list[Any]) -> None:
        self._real = Session(path, settings, providers=["CPUExecutionProvider"])
        self._driver = driver
        self.options = next((entry[1] for entry in providers if entry[0] == CUDA), None)
        self._on_cuda = self.options is not None and not HostSession.falls_back

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [*([CUDA] if self._on_cuda else []), "CPUExecutionProvider"]

    def io_binding(self) -> HostBinding:
        return HostBinding()

    def run_with_iobinding(self, binding: HostBinding, run_options: Any) -> None:
        assert isinstance(run_options, onnxruntime.RunOptions)
        if HostSession.failing:
            raise RuntimeError("CUDA failure 2:\nout of memory")
        assert set(binding.inputs) == {argument.name for argument in self._real.get_inputs()}
        bound = dict(binding.inputs), dict(binding.outputs)
        self._driver.enqueue(int(self.options["user_compute_stream"]), lambda: self._compute(*bound))

    def _compute(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        memory = self._driver.host
        feeds = {name: memory.array(*where).copy() for name, where in inputs.items()}
        for where, value in zip(outputs.values(), self._real.run(list(outputs), feeds), strict=True):
            found = memory.array(*where)
            assert found.shape == value.shape and found.dtype == value.dtype
            found[...] = value


class HostBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, tuple[int, Any, tuple[int, ...]]] = {}
        self.outputs: dict[str, tuple[int, Any, tuple[int, ...]]] = {}

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: tuple[int, ...], pointer: int) -> None:
        assert device == "cuda" and index == 0 and issubclass(dtype, np.generic)
        self.inputs[name] = (pointer, dtype, shape)

    def bind_output(self, name: str, device: str, index: int, dtype: Any, shape: tuple[int, ...], pointer: int) -> None:
        assert device == "cuda" and index == 0 and dtype is np.float32
        self.outputs[name] = (pointer, dtype, shape)


def play_cuda(driver: HostDriver, patch: pytest.MonkeyPatch) -> list[HostSession]:
    """Let onnxruntime have a CUDA provider from now on. Returns the sessions that are made."""
    made: list[HostSession] = []

    def session(path: str, settings: Any, providers: list[Any]) -> HostSession:
        made.append(HostSession(driver, path, settings, providers))
        return made[-1]

    patch.setattr(HostSession, "falls_back", False)
    patch.setattr(HostSession, "failing", False)
    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    patch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    return made
