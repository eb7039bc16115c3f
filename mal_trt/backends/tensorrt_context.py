"""One execution context of TensorRT's on one optimization profile, which several threads and streams take in turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from mal_trt.backends.tensorrt_load import Loaded
from mal_trt.base.errors import InputError, RunError
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.cuda.driver import CudaError, Driver

# Of one profile; the one unused for longest makes room. A graph is for one pair of buffers, and a pipeline has many.
MOST_GRAPHS = 128
ALIGNMENT = 256

Key = tuple[int, int, int, str]


@dataclass(frozen=True)
class Tensors:
    """Inputs and outputs of an engine under one profile.

    index: of the profile. least, most: crops in a batch. crop: shape of one, [3,S,S]. grid: side of `head_grid`, and
    the address it needs although nothing is read; None without such an input. outputs: their names.
    """

    index: int
    least: int
    most: int
    crop: tuple[int, ...]
    grid: tuple[int, int] | None
    outputs: tuple[str, ...]


class ProfileContext:
    """Runs batches of one size class. least, most: crops in a batch. side: of the logits, in pixels of their own.

    Work of one context overlaps on no two streams: it has one scratch memory.
    """

    def __init__(
        self, loaded: Loaded, how: Any, driver: Driver, tensors: Tensors, graphs: bool, note: Callable[[str], None]
    ) -> None:
        """how: argument of `create_execution_context`. note: called if CUDA graphs turn out not to work."""
        self.least, self.most = tensors.least, tensors.most
        self._loaded, self._driver, self._tensors = loaded, driver, tensors
        self._graphs_on, self._note = graphs, note
        self._graphs: OrderedDict[Key, int] = OrderedDict()  # 0: ran once, not captured yet
        self._count = 0  # crops the context's shapes are set to
        self._lock = Lock()
        self._spare = DeviceBuffer(driver)
        self._context = loaded.engine.create_execution_context(how)
        if self._context is None:
            raise loaded.failed("cannot set the engine up")
        self._done = driver.create_event()
        try:
            self.side = self._prepare()
        except BaseException:
            self.close()
            raise

    def enqueue(self, image: int, logits: int, output: str, count: int, stream: int) -> None:
        """Queue a batch; see `DeviceBackend.enqueue`."""
        count = max(count, self.least)
        if count > self.most:
            raise InputError(f"a batch of {count}: {self._loaded.name} takes {self.most} at most; build it for more")
        key = (count, image, logits, output)
        with self._lock, self._driver.current():
            self._driver.wait(stream, self._done)
            try:
                if graph := self._graphs.get(key, 0):
                    self._graphs.move_to_end(key)
                    self._driver.launch_graph(graph, stream)
                else:
                    self._set(*key)
                    self._execute(stream, count)
                    if self._graphs_on:
                        self._remember(key, stream)
            finally:
                # Also after a failure: what was queued before it still uses the scratch memory.
                with suppress(CudaError):
                    self._driver.record(self._done, stream)

    def close(self) -> None:
        """Wait for what is queued and free everything."""
        driver = self._driver
        with self._lock, driver.current():
            with suppress(CudaError):
                driver.synchronize_event(self._done)
            for graph in filter(None, self._graphs.values()):
                with suppress(CudaError):
                    driver.destroy_graph(graph)
            self._graphs.clear()
            self._context = None
            for free in (self._spare.close, lambda: driver.destroy_event(self._done)):
                with suppress(CudaError):
                    free()

    def _prepare(self) -> int:
        """Choose the profile, and find the shape of the logits of its largest batch. Returns their side."""
        index, outputs = self._tensors.index, self._tensors.outputs
        stream = self._driver.create_stream()
        try:
            if not self._context.set_optimization_profile_async(index, stream):
                raise self._loaded.failed(f"does not take its profile {index}")
            self._driver.synchronize(stream)
        finally:
            self._driver.destroy_stream(stream)
        self._shape(self.most)
        shape = tuple(self._context.get_tensor_shape(outputs[0]))
        if len(shape) != 4 or shape[:2] != (self.most, 1) or shape[2] != shape[3] or shape[2] < 1:
            raise InputError(f"{self._loaded.name}: `{outputs[0]}` has the shape {list(shape)}; build it again")
        # Outputs that nobody wants are written all the same, and one may be computed from another.
        self._spare_size = -(-self.most * shape[2] * shape[3] * 4 // ALIGNMENT) * ALIGNMENT
        if len(outputs) > 1:
            self._spare.reserve(self._spare_size * len(outputs))
        return int(shape[2])

    def _shape(self, count: int) -> None:
        if count == self._count:
            return
        # A graph is only good for the shapes the context was set to when it was captured, and still is.
        while self._graphs:
            self._forget()
        self._count = 0
        shapes: dict[str, tuple[int, ...]] = {"image": (count, *self._tensors.crop)}
        if self._tensors.grid is not None:
            side, _ = self._tensors.grid
            shapes["head_grid"] = (1, 1, side, side)
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._loaded.failed(f"refuses `{name}` of shape {list(shape)}")
        self._count = count

    def _set(self, count: int, image: int, logits: int, output: str) -> None:
        """Give the context the shapes and addresses of a batch."""
        self._shape(count)
        addresses = {"image": image}
        if self._tensors.grid is not None:
            _, addresses["head_grid"] = self._tensors.grid
        for place, name in enumerate(self._tensors.outputs):
            addresses[name] = logits if name == output else self._spare.pointer + place * self._spare_size
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._loaded.failed(f"refuses the address of `{name}`")

    def _execute(self, stream: int, count: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._loaded.failed(f"failed on a batch of {count}")

    def _remember(self, key: Key, stream: int) -> None:
        """Capture a graph of a batch that came a second time; it just ran, so TensorRT has nothing left to set up."""
        if key not in self._graphs:
            while len(self._graphs) >= MOST_GRAPHS:
                self._forget()
            self._graphs[key] = 0
            return
        try:
            self._driver.begin_capture(stream)
            try:
                self._execute(stream, key[0])
            except BaseException:
                with suppress(CudaError):
                    self._driver.destroy_graph(self._driver.end_capture(stream))
                raise
            self._graphs[key] = self._driver.end_capture(stream)
        except RunError as error:
            self._graphs_on = False
            self._note(f"CUDA graphs are not used: {error}")

    def _forget(self) -> None:
        _, graph = self._graphs.popitem(last=False)
        if graph:
            self._driver.synchronize_event(self._done)  # it may still be running
            self._driver.destroy_graph(graph)
