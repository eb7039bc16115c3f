"""Engines opened over the doubles of CUDA and TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host_cuda import HostDriver
from host_tensorrt import Faults, host_flavor, write_engine
from mal_trt.backends import tensorrt
from mal_trt.backends.tensorrt import TensorRTBackend, open_engine
from mal_trt.cuda import open as cuda_open
from tiny_model import write_tiny_model


class Opened:
    """Opens engines of a folder over the doubles; `driver` and `faults` are those of the last one."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.driver, self.faults = HostDriver(), Faults()

    def use(self, name: str = "tensorrt", **machine: Any) -> None:
        self.driver, self.faults = HostDriver(**machine), Faults()
        flavor = host_flavor(self.driver, name, self.faults)
        self.patch.setattr(cuda_open, "open_driver", lambda index=0: self.driver)
        self.patch.setattr(tensorrt, "open_flavor", lambda name: flavor)

    def __call__(
        self,
        model: dict[str, Any] | None = None,
        graphs: bool = True,
        engine: dict[str, Any] | None = None,
        **machine: Any,
    ) -> TensorRTBackend:
        self.use((engine or {}).get("flavor", "tensorrt"), **machine)
        onnx = write_tiny_model(self.folder / "tiny.onnx", **{"grid_gain": 0.25, **(model or {})})
        return open_engine(write_engine(onnx, self.folder / "tiny.engine", **(engine or {})), graphs=graphs)
