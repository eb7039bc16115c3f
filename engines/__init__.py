"""ONNX to TensorRT and TensorRT-RTX engines with a manifest. Needs tensorrt or tensorrt-rtx."""

from mal_trt.engines.engine import EngineReport, build_engine
from mal_trt.engines.job import EngineOptions

__all__ = ["EngineOptions", "EngineReport", "build_engine"]
