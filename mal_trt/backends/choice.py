"""Which backend runs a model file: the one named, or the one that measured best for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.base.errors import InputError
from mal_trt.base.processor import native_half

AUTO, ONNXRUNTIME, OPENVINO, TENSORRT = "auto", "onnxruntime", "openvino", "tensorrt"
BACKENDS = (AUTO, ONNXRUNTIME, OPENVINO, TENSORRT)
ENGINES = (".engine", ".plan")
VARIABLE = "MAL_TRT_BACKEND"
INSTALL = 'pip install "mal-trt[openvino]"'


def check_backend(path: Path, device: str, backend: str) -> None:
    """InputError unless a backend of BACKENDS takes such a file on such a kind of device ("auto", "cpu" or "cuda")."""
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    engine = path.suffix.lower() in ENGINES
    if engine and backend not in (AUTO, TENSORRT):
        raise InputError(f"{path}: an engine, which only TensorRT runs; leave out --backend {backend}, or give .onnx")
    if not engine and backend == TENSORRT:
        raise InputError(f"{path}: not an engine, and TensorRT runs nothing else; `mal-trt build-engine` makes one")
    if backend == OPENVINO and device == "cuda":
        raise InputError("backend openvino: it runs models on the processor; leave out --device cuda")
    if backend == OPENVINO and not installed():
        raise InputError(f"backend openvino: not installed; run: {INSTALL}")


def processor_backend(path: Path) -> str:
    """ONNXRUNTIME or OPENVINO: which of them `auto` takes for an .onnx file on a processor.

    MAL_TRT_BACKEND says it. Otherwise OpenVINO where it was measured to win: it is installed, the processor computes
    bfloat16 by itself, and the file is FP32.
    """
    if named := os.environ.get(VARIABLE):
        if named not in (ONNXRUNTIME, OPENVINO):
            raise InputError(f"{VARIABLE} {named!r}: expected {ONNXRUNTIME} or {OPENVINO}")
        return named
    wins = installed() and native_half() == "bf16" and read_contract(path).precision == "fp32"
    return OPENVINO if wins else ONNXRUNTIME


def reference_backend(model: str | Path) -> str:
    """The backend that computes a model as its file says: what others are compared with."""
    return TENSORRT if Path(model).suffix.lower() in ENGINES else ONNXRUNTIME


def one_each(backend: str | Sequence[str], models: int) -> list[str]:
    """The backend of each of `models` models, from one for all, or from one for each (as text, with commas between)."""
    names = [part.strip() for part in backend.split(",")] if isinstance(backend, str) else list(backend)
    if len(names) not in (1, models):
        raise InputError(f"backend {','.join(names)}: {len(names)} for {models} models; give one for all, or one each")
    return names * models if len(names) == 1 else names


def installed() -> bool:
    """Whether OpenVINO is there; it is not imported."""
    return find_spec("openvino") is not None


def backend_of(provider: str) -> str:
    """The backend that a `Backend.provider` names."""
    if provider.endswith("ExecutionProvider"):
        return ONNXRUNTIME
    return OPENVINO if provider.startswith("OpenVINO") else TENSORRT


def on_processor(provider: str) -> bool:
    """Whether a backend with this `Backend.provider` computes the network on the processor."""
    return provider == "CPUExecutionProvider" or backend_of(provider) == OPENVINO
