"""A test double of TensorRT's runtime: ONNX Runtime on the CPU plays the engine. No TensorRT runs here.

`from host_tensorrt import host_flavor, write_engine`. Plans are made up: TensorRT's first bytes, the profiles, and an
ONNX file. What the real library refuses with False, None and a line in its log is refused likewise; what it leaves
undefined (two streams in one context at once, a missing address) is an AssertionError.
"""

from __future__ import annotations

import enum
import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from host_cuda import HostDriver
from mal_trt.artifacts.enginefile import MAGIC
from mal_trt.artifacts.flavor import Flavor
from mal_trt.artifacts.manifest import Manifest, Profile, manifest_path
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.base.gpu import platform_tag
from mal_trt.engines.profiles import profiles as make_profiles

HEADER = 64
VERSIONS = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116"}
NUMPY = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(float16)": ("HALF", np.float16),
}

Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])
DataType = enum.Enum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "FP8", "UINT8"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
Strategy = enum.Enum("Strategy", ["STATIC", "ON_PROFILE_CHANGE"])
GraphStrategy = enum.Enum("GraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])
Format = enum.Enum("Format", ["ONELINE", "JSON"])


@dataclass
class Faults:
    """What a test lets go wrong, and what it counts. executes: runs queued; failing: those that give False next;
    capturable: whether runs can be captured; refuse: methods that give None or False. contexts: all that were made;
    warnings: logged when a plan is read; engines: those that live."""

    executes: int = 0
    failing: int = 0
    capturable: bool = True
    refuse: set[str] = field(default_factory=set)
    refitted: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    engines: Any = field(default_factory=weakref.WeakSet)
    compiled: bytes = b"kernels"
    loaded_cache: bytes = b""


def host_flavor(driver: HostDriver, name: str = "tensorrt", faults: Faults | None = None) -> Flavor:
    """The double as an opened flavour whose engines run in the memory and the streams of a HostDriver."""
    faults = faults or Faults()
    library = SimpleNamespace(
        ILogger=object,
        Runtime=lambda logger: _Runtime(driver, logger, faults),
        Refitter=lambda engine, logger: _Refitter(engine, faults),
        OnnxParserRefitter=lambda refitter, logger: _ParserRefitter(refitter),
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        ExecutionContextAllocationStrategy=Strategy,
        CudaGraphStrategy=GraphStrategy,
        LayerInformationFormat=Format,
        faults=faults,
    )
    return Flavor(name, VERSIONS[name], library)


def write_engine(
    onnx: Path,
    out: Path,
    batch: tuple[int, int, int] = (1, 2, 4),
    flavor: str = "tensorrt",
    profiles: Sequence[Profile] | None = None,
    **changes: Any,
) -> Path:
    """A made-up plan of an ONNX file with its manifest. changes: other values for fields of the manifest."""
    contract = read_contract(onnx)
    if profiles is None:
        profiles = make_profiles(contract, batch)
    plan = make_plan(onnx.read_bytes(), profiles, flavor)
    out.write_bytes(plan)
    facts: dict[str, Any] = {
        "contract": contract,
        "flavor": flavor,
        "version": VERSIONS[flavor],
        "compute_capabilities": ("8.6",),
        "os": platform_tag(),
        "gpu": "made up",
        "precision": {},
        "precision_source": "network",
        "profiles": tuple(profiles),
        "flags": (),
        "opt_level": 3,
        "workspace": None,
        "onnx": onnx.name,
        "onnx_sha256": hashlib.sha256(onnx.read_bytes()).hexdigest(),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_bytes": len(plan),
        "parity": {"status": "passed"},
        "command": f"mal-trt build-engine {onnx.name} -o {out.name}",
        "producer": "test double",
    }
    manifest_path(out).write_text(Manifest(**{**facts, **changes}).to_json())
    return out


def make_plan(onnx: bytes, profiles: Sequence[Profile], flavor: str = "tensorrt") -> bytes:
    magic = next(start for start, name in MAGIC.items() if name == flavor)
    shapes = json.dumps([[profile.batch, profile.grid, profile.side] for profile in profiles]).encode()
    size = HEADER + 8 + len(shapes) + len(onnx)
    head = magic.ljust(16, b"\0") + size.to_bytes(8, "little")
    return head.ljust(HEADER, b"\0") + len(shapes).to_bytes(8, "little") + shapes + onnx


class _Runtime:
    engine_host_code_allowed = False

    def __init__(self, driver: HostDriver, logger: Any, faults: Faults) -> None:
        self.driver, self.logger, self.faults = driver, logger, faults

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        assert not self.engine_host_code_allowed
        import onnxruntime

        for text in self.faults.warnings:
            self.logger.log(Severity.WARNING, text)
        length = int.from_bytes(plan[HEADER : HEADER + 8], "little")
        start = HEADER + 8 + length
        try:
            profiles = [(tuple(batch), grid, side) for batch, grid, side in json.loads(plan[HEADER + 8 : start])]
            session = onnxruntime.InferenceSession(plan[start:], providers=["CPUExecutionProvider"])
        except Exception:
            self.log("Serialization assertion magicTag == rt::kPLAN_MAGIC_TAG failed.")
            return None
        return _Engine(self, session, profiles)

    def log(self, text: str) -> None:
        self.logger.log(Severity.ERROR, text)


class _Engine:
    def __init__(self, runtime: _Runtime, session: Any, profiles: list[Any]) -> None:
        self.runtime, self.session, self.profiles = runtime, session, profiles
        self.arguments = {a.name: a for a in (*session.get_inputs(), *session.get_outputs())}
        self.inputs = [a.name for a in session.get_inputs()]
        self.num_io_tensors = len(self.arguments)
        self.num_optimization_profiles = len(profiles)
        runtime.faults.engines.add(self)

    def get_tensor_name(self, index: int) -> str:
        return list(self.arguments)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[NUMPY[self.arguments[name].type][0]]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        batch, grid, side = self.profiles[index]
        if name == "head_grid":
            return [(1, 1, grid, grid)] * 3
        _, *crop = self.arguments[name].shape
        return [(count, *([3, side, side] if side else crop)) for count in batch]

    def create_execution_context(self, how: Any) -> _Context | None:
        faults = self.runtime.faults
        assert isinstance(how, _RuntimeConfig) or how == Strategy.ON_PROFILE_CHANGE
        if "create_execution_context" in faults.refuse:
            self.runtime.log("Requested amount of GPU memory (123 bytes) could not be allocated: Out of memory")
            return None
        faults.contexts.append(_Context(self))
        return faults.contexts[-1]

    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig(self.runtime.faults)

    def create_engine_inspector(self) -> Any:
        layer = {"Name": "double", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Half"}], "Outputs": []}
        document = json.dumps({"Layers": [layer], "Bindings": list(self.arguments)})
        return SimpleNamespace(get_engine_information=lambda format: document if format == Format.JSON else "")


class _Context:
    """Rules kept: a profile first, shapes within it, an address for every tensor, one run at a time on the GPU."""

    def __init__(self, engine: _Engine) -> None:
        self.engine, self.faults, self.driver = engine, engine.runtime.faults, engine.runtime.driver
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.ran: dict[str, tuple[int, ...]] = {}
        self.queued = self.finished = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not 0 <= index < self.engine.num_optimization_profiles:
            self.engine.runtime.log(f"profile {index} does not exist")
            return False
        self.driver.enqueue(stream, lambda: None)
        self.profile, self.shapes = index, {}
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None and name in self.engine.inputs
        least, _, most = self.engine.get_tensor_profile_shape(name, self.profile)
        fits = len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if not fits:
            self.engine.runtime.log(f"Supplied binding dimension {list(shape)} for bindings[0] exceed min ~ max range")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.engine.inputs:
            return self.shapes[name]
        _, *rest = self.engine.arguments[name].shape
        count, _, _, side = self.shapes["image"]
        return (count, *(entry if isinstance(entry, int) else side // 4 for entry in rest))

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.engine.arguments, name
        assert isinstance(address, int) and address % 256 == 0, "TensorRT wants addresses aligned to 256"
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream, "on the default stream"
        assert set(self.shapes) == set(self.engine.inputs), "an input without a shape"
        assert set(self.addresses) == set(self.engine.arguments), "a tensor without an address"
        captured = self.driver._get("stream", stream).capture is not None
        if captured:
            assert self.ran == self.shapes, "captured before an ordinary run with these shapes"
        if self.faults.failing or (captured and not self.faults.capturable):
            self.faults.failing = max(0, self.faults.failing - 1)
            self.engine.runtime.log("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal address)")
            return False
        self.faults.executes += 1
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        if captured:
            self.driver.enqueue(stream, lambda: self._compute(shapes, addresses))
            return True
        self.ran = shapes
        self.queued += 1
        self.driver.enqueue(stream, partial(self._in_order, self.queued, shapes, addresses))
        return True

    def _in_order(self, number: int, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        assert number == self.finished + 1, "two streams ran one context at once, or in another order than queued"
        self.finished = number
        self._compute(shapes, addresses)

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        engine, memory = self.engine, self.driver.host
        feeds = {}
        for name in engine.inputs:
            kind = NUMPY[engine.arguments[name].type][1]
            feeds[name] = memory.array(addresses[name], kind, shapes[name]).copy()
        names = [name for name in engine.arguments if name not in engine.inputs]
        for name, value in zip(names, engine.session.run(names, feeds), strict=True):
            memory.array(addresses[name], np.float32, value.shape)[...] = value


class _RuntimeConfig:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.cuda_graph_strategy = GraphStrategy.DISABLED
        faults.contexts.append(self)

    def set_execution_context_allocation_strategy(self, strategy: Strategy) -> None:
        assert strategy == Strategy.ON_PROFILE_CHANGE

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache(self.faults)

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        return True


class _RuntimeCache:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def deserialize(self, blob: bytes) -> bool:
        self.faults.loaded_cache = blob
        return blob == self.faults.compiled

    def serialize(self) -> bytes:
        return self.faults.compiled


class _Refitter:
    def __init__(self, engine: _Engine, faults: Faults) -> None:
        self.engine, self.faults = engine, faults

    def refit_cuda_engine(self) -> bool:
        return "refit_cuda_engine" not in self.faults.refuse


class _ParserRefitter:
    def __init__(self, refitter: _Refitter) -> None:
        self.refitter = refitter
        self.num_errors = 1

    def refit_from_file(self, path: str) -> bool:
        self.refitter.faults.refitted.append(path)
        return "refit_from_file" not in self.refitter.faults.refuse

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "weights differ")
