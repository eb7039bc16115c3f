"""TensorRT and TensorRT-RTX: the backend of engines."""

from __future__ import annotations

import os
import traceback
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from mal_trt.artifacts.enginefile import check_machine, load_engine
from mal_trt.artifacts.flavor import Flavor, open_flavor
from mal_trt.artifacts.manifest import UNCHECKED, Manifest, write_manifest
from mal_trt.artifacts.parity import check
from mal_trt.artifacts.parity_file import engine_parity_path
from mal_trt.backends.signature import LOGITS, check_image, output_name
from mal_trt.backends.tensorrt_cache import RuntimeSettings
from mal_trt.backends.tensorrt_context import ProfileContext, Tensors
from mal_trt.backends.tensorrt_load import Loaded, load_plan
from mal_trt.base.errors import InputError, NanLogits, RunError
from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.geometry.boxes import SizeClass

TENSOR_TYPES = {"uint8": "UINT8", "float32": "FLOAT"}


class TensorRTBackend:
    """An engine on one GPU. See `DeviceBackend` for the interface; manifest: what the engine says about itself.

    notes: what the user should know, such as that it was built on another model of GPU, or that CUDA graphs fail.
    """

    def __init__(
        self,
        name: str,
        plan: bytes,
        manifest: Manifest,
        driver: Driver,
        flavor: Flavor,
        *,
        onnx: Path | None = None,
        graphs: bool = True,
    ) -> None:
        """name: the engine's file. driver: closed with the backend. onnx: for engines without weights, see `load_plan`.

        InputError if the plan is not one for here, RunError if it cannot be run, such as for want of memory.
        """
        self.contract, self.manifest, self.driver = manifest.contract, manifest, driver
        self.provider = f"{flavor.title} ({driver.device.name})"
        self.precision = self.contract.precision
        self.notes: list[str] = []
        self._first_note = Lock()  # taken by the first of several threads
        self._name = name
        self._run_lock = Lock()
        self._loaded: Loaded | None = None
        self._profiles: dict[SizeClass, ProfileContext] = {}
        self._closing = ExitStack()
        self._is_open = True
        try:
            with driver.current():
                self._open(plan, flavor, onnx, graphs)
        except BaseException as error:
            # The error would keep the engine alive, which must go before the GPU's context.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        profile = self._profile(size)
        check_image(image, self.contract, size)
        output = self.output(weights)
        logits = np.empty((len(image), 1, profile.side, profile.side), np.float32)
        with self._run_lock, self.driver.current():
            for first in range(0, len(image), profile.most):
                part = slice(first, first + profile.most)
                self._run(profile, image[part], output, logits[part])
        if np.isnan(logits).any():
            raise NanLogits(f"{self._name}: the engine gave NaN logits; build it with --precision fp32")
        return logits

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        """See `DeviceBackend.enqueue`."""
        self._profile(size).enqueue(image, logits, self.output(weights), count, stream)

    def most(self, size: SizeClass) -> int:
        """See `DeviceBackend.most`."""
        return self._profile(size).most

    def least(self, size: SizeClass) -> int:
        """See `DeviceBackend.least`."""
        return self._profile(size).least

    def logits_side(self, size: SizeClass) -> int:
        """See `DeviceBackend.logits_side`."""
        return self._profile(size).side

    def output(self, weights: str | None) -> str:
        """Name of the engine's output with the logits of some weights; see `output_name`."""
        return output_name(weights, self.contract, self.outputs, self._name)

    def layers(self) -> str:
        """TensorRT's description of the engine's layers, JSON."""
        if self._loaded is None:
            raise self._closed()
        with self.driver.current():
            inspector = self._loaded.engine.create_engine_inspector()
            wanted = self._loaded.flavor.member("LayerInformationFormat", "JSON")
            return str(inspector.get_engine_information(wanted))

    def close(self) -> None:
        """See `Backend.close`."""
        if not self._is_open:
            return
        self._is_open = False
        self._profiles = {}
        with suppress(CudaError), self.driver.current():  # a GPU that was lost frees everything by itself
            self._closing.close()
        self.driver.close()

    def _open(self, plan: bytes, flavor: Flavor, onnx: Path | None, graphs: bool) -> None:
        loaded = load_plan(self._name, plan, self.manifest, flavor, onnx)
        self._loaded = loaded
        self._closing.callback(self._unload)
        self.notes += loaded.warnings()
        self.outputs = _check_tensors(loaded, self.manifest)
        how = flavor.member("ExecutionContextAllocationStrategy", "ON_PROFILE_CHANGE")
        if flavor.name == "tensorrt-rtx":
            settings = RuntimeSettings(loaded, self.manifest.plan_sha256, self.driver.device.name, graphs)
            self._closing.callback(settings.close)
            how, graphs = settings.config, False  # it makes graphs of its own
        grid = DeviceBuffer(self.driver)  # only the dimensions of `head_grid` count, but it needs an address
        self._closing.callback(grid.close)
        if self.contract.head == "dynamic":
            grid.reserve(self.contract.grid(SizeClass.LARGE) ** 2)
        made: dict[Tensors, ProfileContext] = {}
        for size in SizeClass:
            tensors = self._tensors(loaded, size, grid.pointer)
            if tensors not in made:
                made[tensors] = ProfileContext(loaded, how, self.driver, tensors, graphs, self._note)
                self._closing.callback(made[tensors].close)
            self._profiles[size] = made[tensors]
        self._staged = Staging(self.driver), Staging(self.driver)
        for staging in self._staged:
            self._closing.callback(staging.close)
        self._stream = self.driver.create_stream()
        self._closing.callback(self.driver.destroy_stream, self._stream)

    def _tensors(self, loaded: Loaded, size: SizeClass, grid: int) -> Tensors:
        index = _profile_of(loaded, self.manifest, size)
        least, _, most = (tuple(shape) for shape in loaded.engine.get_tensor_profile_shape("image", index))
        side = (self.contract.grid(size), grid) if grid else None
        return Tensors(index, least[0], most[0], most[1:], side, self.outputs)

    def _run(self, profile: ProfileContext, image: np.ndarray, output: str, into: np.ndarray) -> None:
        """One batch: copied up, run, copied down. Room is made for the largest, so that it is made once."""
        count, stream = len(image), self._stream
        held = max(count, profile.least)
        shape = (profile.most, *image.shape[1:])
        up, down = self._staged
        crops = up.reserve(int(np.prod(shape)) * np.dtype(self.contract.input_dtype).itemsize)
        crops = crops.view(self.contract.input_dtype)[: np.prod(shape)].reshape(shape)
        crops[:count], crops[count:held] = image, 0
        room = down.reserve(4 * profile.most * profile.side**2)
        try:
            up.upload(crops[:held].nbytes, stream)
            profile.enqueue(up.pointer, down.pointer, output, count, stream)
            down.download(into.nbytes, stream)
        finally:  # also after a failure: what is queued uses memory that the next run may let go
            self.driver.synchronize(stream)
        into[...] = room[: into.nbytes].view(np.float32).reshape(into.shape)

    def _profile(self, size: SizeClass) -> ProfileContext:
        if not self._profiles:
            raise self._closed()
        return self._profiles[size]

    def _closed(self) -> RunError:
        return RunError(f"{self._name}: this backend is closed; open it again")

    def _note(self, text: str) -> None:
        """Keep the first note of the contexts; the others say the same."""
        if self._first_note.acquire(blocking=False):
            self.notes.append(text)

    def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()


def open_engine(path: Path, index: int = 0, graphs: bool = True) -> TensorRTBackend:
    """Open an engine on a GPU, after everything that can be checked beforehand.

    index: the GPU's number. graphs: use CUDA graphs; MAL_TRT_GRAPHS=0 in the environment turns them off. One built
    where there was no GPU is compared with its FP32 model now, the first time; InputError if it fails.
    """
    plan, manifest = load_engine(path)
    from mal_trt.cuda.open import open_driver

    driver = open_driver(index)  # first: without a driver TensorRT crashes
    try:
        flavor = open_flavor(manifest.flavor)
        check_machine(path, manifest, flavor, ".".join(map(str, driver.device.compute_capability)))
        graphs = graphs and os.environ.get("MAL_TRT_GRAPHS") != "0"
    except BaseException:
        driver.close()
        raise
    backend = TensorRTBackend(str(path), plan, manifest, driver, flavor, graphs=graphs)
    try:
        if manifest.parity["status"] == UNCHECKED:
            backend.manifest = _check_first(backend, path)
    except BaseException:
        backend.close()
        raise
    return backend


def _check_first(backend: TensorRTBackend, path: Path) -> Manifest:
    """Run the accuracy check. Returns the manifest with its result, which is also written, if the disk allows."""
    manifest, reference = backend.manifest, engine_parity_path(path)
    if reference.is_file():
        verdict = check(backend.run, reference, backend.contract, max(map(backend.most, SizeClass)))
        if not verdict.passed and not manifest.parity.get("keep_anyway"):
            raise InputError(
                f"{path}: refused, its masks on this GPU are not those of the FP32 model ({verdict.describe()}); "
                f"build it again here, which tries other precisions too: {manifest.command}"
            )
        parity = verdict.document()
    else:
        parity = {**manifest.parity, "reason": f"{reference.name} is not beside it"}
    if parity != manifest.parity:
        manifest = replace(manifest, parity=parity)
        with suppress(RunError):
            write_manifest(path, manifest)
    return manifest


def _check_tensors(loaded: Loaded, manifest: Manifest) -> tuple[str, ...]:
    """The engine's outputs, `logits` first; InputError if its tensors are not those its contract promises."""
    engine, contract = loaded.engine, manifest.contract
    again = f"build it again: {manifest.command}"
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    taken = loaded.flavor.member("TensorIOMode", "INPUT")
    inputs = {name for name in names if engine.get_tensor_mode(name) == taken}
    expected = {"image", "head_grid"} if contract.head == "dynamic" else {"image"}
    outputs = tuple(sorted(set(names) - inputs))
    if inputs != expected or LOGITS not in outputs or not all(name.startswith(LOGITS) for name in outputs):
        raise InputError(
            f"{loaded.name}: takes {', '.join(sorted(inputs))} and gives {', '.join(outputs)}, but its manifest "
            f"(head {contract.head}) promises {', '.join(sorted(expected))} and {LOGITS}; {again}"
        )
    wanted = {"image": TENSOR_TYPES[contract.input_dtype], **dict.fromkeys(outputs, "FLOAT")}
    for name, kind in wanted.items():
        if (found := engine.get_tensor_dtype(name)) != loaded.flavor.member("DataType", kind):
            raise InputError(f"{loaded.name}: its `{name}` is {found.name.lower()}, not {kind.lower()}; {again}")
    return outputs


def _profile_of(loaded: Loaded, manifest: Manifest, size: SizeClass) -> int:
    """Number of the optimization profile for a size class; InputError if there is none for its crops."""
    engine, contract = loaded.engine, manifest.contract
    grid, side = contract.grid(size), contract.side(size)
    for index in range(engine.num_optimization_profiles):
        image = tuple(engine.get_tensor_profile_shape("image", index)[2])
        if image[1:] != (3, side, side):
            continue
        if contract.head != "dynamic":
            return index
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape("head_grid", index))
        if least[2] <= grid <= most[2] and least[3] <= grid <= most[3]:
            return index
    shape = f"[N, 3, {side}, {side}]"
    grids = f" with head_grid {grid}" if contract.head == "dynamic" else ""
    raise InputError(f"{loaded.name}: has no profile for {shape}{grids}; build it again: {manifest.command}")
