"""TensorRT and TensorRT-RTX as one: import, version floor, names, and what the library says while it works.

The only file that names them. Enum members are looked up by name: their integers change with every major version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any

from mal_trt.base.errors import InputError, RunError, one_line

MODULES = MappingProxyType({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"})
TITLES = MappingProxyType({"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"})
OLDEST = MappingProxyType({"tensorrt": (10, 3), "tensorrt-rtx": (1, 2)})
INSTALL = MappingProxyType(
    {
        "tensorrt": 'pip install "mal-trt[gpu]" (on a Jetson it comes with JetPack: make the environment with '
        "`python3 -m venv --system-site-packages`)",
        "tensorrt-rtx": 'pip install "mal-trt[rtx]"',
    }
)

# All of the library that this project touches: class or enum -> members. A library that lacks any of it is refused,
# and the tests look each of them up in the bindings of several versions.
API = MappingProxyType(
    {
        "ILogger": ("log",),
        "Builder": (
            "create_network",
            "create_builder_config",
            "create_optimization_profile",
            "build_serialized_network",
        ),
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
        "OnnxParser": ("parse_from_file", "num_errors", "get_error"),
        "ParserError": ("desc", "node_name"),
        "INetworkDefinition": ("num_inputs", "get_input", "num_layers", "get_layer"),
        "ILayer": ("type", "name", "num_inputs", "get_input", "num_outputs", "get_output"),
        "ITensor": ("name", "dtype", "shape"),
        "LayerType": (
            "MATRIX_MULTIPLY",
            "CONVOLUTION",
            "NORMALIZATION",
            "SOFTMAX",
            "RESIZE",
            "CONSTANT",
            "QUANTIZE",
            "DEQUANTIZE",
        ),
        "DataType": ("FLOAT", "HALF", "BF16", "INT8", "FP8", "UINT8"),
        "IBuilderConfig": (
            "builder_optimization_level",
            "hardware_compatibility_level",
            "profiling_verbosity",
            "progress_monitor",
            "set_memory_pool_limit",
            "set_flag",
            "clear_flag",
            "add_optimization_profile",
            "create_timing_cache",
            "set_timing_cache",
            "get_timing_cache",
        ),
        "BuilderFlag": ("TF32", "VERSION_COMPATIBLE", "STRIP_PLAN"),
        "HardwareCompatibilityLevel": ("AMPERE_PLUS",),
        "ProfilingVerbosity": ("DETAILED",),
        "MemoryPoolType": ("WORKSPACE",),
        "IOptimizationProfile": ("set_shape",),
        "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
        "ITimingCache": ("serialize",),
        "IHostMemory": ("nbytes",),
        "Runtime": ("deserialize_cuda_engine",),
        "ICudaEngine": (
            "num_io_tensors",
            "num_optimization_profiles",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_dtype",
            "get_tensor_profile_shape",
            "create_execution_context",
            "create_engine_inspector",
        ),
        "TensorIOMode": ("INPUT",),
        "ExecutionContextAllocationStrategy": ("ON_PROFILE_CHANGE",),
        "IExecutionContext": (
            "set_optimization_profile_async",
            "set_input_shape",
            "get_tensor_shape",
            "set_tensor_address",
            "execute_async_v3",
        ),
        "EngineInspector": ("get_engine_information",),
        "LayerInformationFormat": ("JSON",),
        "Refitter": ("refit_cuda_engine",),
        "OnnxParserRefitter": ("refit_from_file", "num_errors", "get_error"),
    }
)
# Members that only one flavour has.
MORE = MappingProxyType(
    {
        "tensorrt": {},
        "tensorrt-rtx": {
            "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
            "ComputeCapability": ("SM75", "SM80", "SM86", "SM89", "SM120"),
            "ICudaEngine": ("create_runtime_config",),
            "IRuntimeConfig": (
                "cuda_graph_strategy",
                "create_runtime_cache",
                "set_runtime_cache",
                "set_execution_context_allocation_strategy",
            ),
            "IRuntimeCache": ("serialize", "deserialize"),
            "CudaGraphStrategy": ("DISABLED", "WHOLE_GRAPH_CAPTURE"),
        },
    }
)
LOUD = ("WARNING", "ERROR", "INTERNAL_ERROR")
SPARSITY = "(Sparsity)"  # what TensorRT says of 2:4 sparse layers begins so
KEPT = 200  # messages: a warning with every batch must not fill the memory


@dataclass
class Messages:
    """What the library logged: warnings and errors, in order, as (severity, text); the last of them. sparsity: what it
    said of sparse layers, of any severity."""

    all: list[tuple[str, str]] = field(default_factory=list)
    sparsity: list[str] = field(default_factory=list)

    def add(self, severity: str, text: str) -> None:
        if SPARSITY in text:
            self.sparsity.append(text)
            del self.sparsity[:-KEPT]
        if severity in LOUD:
            self.all.append((severity, text))
            del self.all[:-KEPT]

    @property
    def errors(self) -> list[str]:
        return [text for severity, text in self.all if severity != "WARNING"]


@dataclass(frozen=True)
class Flavor:
    """An imported TensorRT. name: "tensorrt" or "tensorrt-rtx"; version: such as "10.3.0" or "1.7.1.116"."""

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def needs_gpu(self) -> bool:
        """Whether it builds only on the GPU it builds for. Without a driver such a library crashes."""
        return self.name == "tensorrt"

    def member(self, enum: str, name: str) -> Any:
        """Member of an enum by name; RunError where this version lacks it."""
        try:
            return getattr(getattr(self.module, enum), name)
        except AttributeError:
            raise RunError(f"{self.title} has no {enum}.{name}; install a newer version") from None

    def subclass(self, base: str, **methods: Any) -> Any:
        """An instance of a new subclass of one of the library's classes; methods take `self` first."""
        parent = getattr(self.module, base)
        return type(f"{base}ForMalTrt", (parent,), methods)()

    def logger(self, messages: Messages) -> Any:
        """A logger that keeps warnings and errors instead of printing them."""
        return self.subclass("ILogger", log=lambda _, severity, text: messages.add(severity.name, text))


def open_flavor(name: str) -> Flavor:
    """Import "tensorrt" or "tensorrt-rtx"; RunError where it is missing, broken, too old or lacks what is used."""
    if name not in MODULES:
        raise InputError(f"flavor {name}: expected one of {', '.join(MODULES)}")
    try:
        module = import_module(MODULES[name])
    except ModuleNotFoundError as error:
        if error.name != MODULES[name]:
            raise RunError(f"{TITLES[name]} is installed, but {error.name} is not; run: {INSTALL[name]}") from None
        raise RunError(f"{TITLES[name]} is not installed; run: {INSTALL[name]}") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise RunError(
            f"{TITLES[name]} is installed but cannot be loaded ({one_line(error)}); run: {INSTALL[name]}"
        ) from None
    flavor = Flavor(name, str(getattr(module, "__version__", "0")), module)
    _check_version(flavor)
    lacking = missing(flavor)
    if lacking:
        raise RunError(f"{flavor.title} lacks {', '.join(lacking)}; this mal-trt does not know that version")
    return flavor


def missing(flavor: Flavor) -> list[str]:
    """Names of the API this project uses that the library does not have."""
    tables = (API, MORE[flavor.name])
    wanted = [(owner, member) for table in tables for owner, members in table.items() for member in members]
    return [f"{owner}.{member}" for owner, member in wanted if not hasattr(getattr(flavor.module, owner, None), member)]


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.3.0.26` as numbers; anything after them is dropped."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _check_version(flavor: Flavor) -> None:
    oldest = OLDEST[flavor.name]
    if version_numbers(flavor.version) >= oldest:
        return
    floor = ".".join(map(str, oldest))
    if flavor.name == "tensorrt":
        raise RunError(
            f"{flavor.title} is too old: before {floor} it guesses precisions instead of taking them from the "
            "model, and gets transformers wrong; on a Jetson Orin install JetPack 6.1 or newer (TensorRT 10.3), "
            f"elsewhere TensorRT {floor} or newer"
        )
    raise RunError(f"{flavor.title} is too old; install {floor} or newer: {INSTALL[flavor.name]}")
