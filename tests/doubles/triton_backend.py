"""A stand-in of Triton's Python backend: `triton_python_backend_utils` as the stub process has it, whose calls to other
models run the repository's ONNX file in ONNX Runtime, held to the shapes of its config.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from triton_config import config_json, parse_config

TYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64, "TYPE_STRING": np.object_}


class Tensor:
    def __init__(self, name: str, value: np.ndarray) -> None:
        assert isinstance(value, np.ndarray)
        self._name, self._value = name, value

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._value


class TritonError(Exception):
    def message(self) -> str:
        return str(self)


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self._tensors, self._error = output_tensors, error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def error(self) -> TritonError | None:
        return self._error

    def has_error(self) -> bool:
        return self._error is not None


@dataclass
class Request:
    """What a client sent."""

    tensors: list[Tensor]


@dataclass
class PreferredMemory:
    kind: int
    device: int


@dataclass
class Server:
    """The models of a repository, and the calls that were made to them: model, output and batch of each."""

    repository: Path
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    broken: str = ""
    ready: bool = False  # models can be called from `execute` alone

    def load(self, name: str) -> Any:
        """The Python model of the repository, initialised as the backend does it."""
        folder = self.repository / name
        path = folder / "1" / "model.py"
        spec = importlib.util.spec_from_file_location(f"served_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config_json(folder / "config.pbtxt")), "model_name": name})
        self.ready = True
        return model

    def infer(self, model: Any, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        """Send one request to a Python model; its error is raised."""
        (response,) = model.execute([Request([Tensor(name, value) for name, value in tensors.items()])])
        if response.has_error():
            raise RuntimeError(response.error().message())
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}

    def run(self, name: str, outputs: list[str], tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
        """What the server does with a call: check it against the config, run the file."""
        import onnxruntime

        assert self.ready, "a model was called before the server was ready"
        config = parse_config((self.repository / name / "config.pbtxt").read_text())
        batch = len(tensors["image"])
        self.calls.append((name, outputs[0], batch))
        if self.broken:
            raise TritonError(self.broken)
        assert {entry.name for entry in config.input} == set(tensors)
        for entry in config.input:
            value = tensors[entry.name]
            shape = value.shape[1:] if config.max_batch_size else value.shape
            assert value.dtype == TYPES[kind(entry)], f"{entry.name}: {value.dtype}"
            assert fits(shape, entry.dims), f"{entry.name}: {shape} for {list(entry.dims)}"
            assert not config.max_batch_size or batch <= config.max_batch_size
        session = onnxruntime.InferenceSession(str(self.repository / name / "1" / "model.onnx"))
        results = session.run(outputs, tensors)
        for entry in config.output:
            if entry.name in outputs:
                value = results[outputs.index(entry.name)]
                assert fits(value.shape[1:] if config.max_batch_size else value.shape, entry.dims)
        return list(results)


def kind(entry: Any) -> str:
    return str(entry.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[entry.data_type].name)


def fits(shape: tuple[int, ...], dims: Any) -> bool:
    return len(shape) == len(dims) and all(wanted in (-1, side) for side, wanted in zip(shape, dims, strict=True))


def backend_utils(server: Server) -> ModuleType:
    """The module that a Python model imports, of one server."""

    class InferenceRequest:
        def __init__(
            self,
            model_name: str,
            requested_output_names: list[str],
            inputs: list[Tensor],
            preferred_memory: PreferredMemory,
        ) -> None:
            assert preferred_memory == PreferredMemory(0, 0)
            self._wanted = (model_name, requested_output_names, {t.name(): t.as_numpy() for t in inputs})
            self._names = requested_output_names

        def exec(self) -> InferenceResponse:
            try:
                results = server.run(*self._wanted)
            except TritonError as error:
                return InferenceResponse([], error)
            return InferenceResponse([Tensor(n, v) for n, v in zip(self._names, results, strict=True)])

    module = ModuleType("triton_python_backend_utils")
    for entry in (Tensor, TritonError, InferenceResponse, PreferredMemory, InferenceRequest):
        setattr(module, entry.__name__, entry)
    module.TRITONSERVER_MEMORY_CPU = 0  # type: ignore[attr-defined]
    module.get_input_tensor_by_name = lambda request, name: _named(request.tensors, name)  # type: ignore[attr-defined]
    module.get_output_tensor_by_name = lambda answer, name: _named(answer.output_tensors(), name)  # type: ignore[attr-defined]
    return module


def _named(tensors: list[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


def serve(repository: Path, monkeypatch: Any) -> Server:
    """A server of a repository; the Python model imports its stand-in until the test ends."""
    server = Server(repository)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend_utils(server))
    monkeypatch.delitem(sys.modules, "mal_trt.packages.triton_model", raising=False)
    return server
