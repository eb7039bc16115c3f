"""A test double of mal_trt.cuda.driver.Driver: host memory plays the GPU's. No CUDA runs here.

Tests say `from host_cuda import HostDriver` (pytest's `pythonpath` setting names this folder).
What CUDA leaves undefined, such as a copy past the end of its memory, is an AssertionError here.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from host_memory import HostMemory
from mal_trt.cuda.compile import FOLDER
from mal_trt.cuda.driver import Device, Grid, failure

SHARED_LIMIT = 48 << 10
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
TYPES = {
    "int": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float": "float32",
    "double": "float64",
}
KINDS = ("memory", "pinned", "stream", "event", "module", "graph")

Work = Callable[[], None]


def signatures(source: str) -> dict[str, list[str]] | None:
    """NumPy names of the parameters' types of each kernel in a file of mal_trt/cuda/kernels; None without that file."""
    path = FOLDER / source
    if not path.is_file():
        return None
    found = {}
    for name, parameters in KERNEL.findall(path.read_text()):
        types = [parameter.replace("const ", "").rsplit(maxsplit=1) for parameter in parameters.split(",")]
        found[name] = ["uint64" if "*" in kind + last else TYPES[kind.strip()] for kind, last in types]
    return found


@dataclass
class _Stream:
    queue: deque[Work] = field(default_factory=deque)
    capture: list[Work] | None = None
    thread: int = 0
    broken: bool = False


@dataclass
class _Event:
    timing: bool
    stream: _Stream | None = None
    pending: Work | None = None  # the queued record, as long as it has not run
    seconds: float | None = None
    captured: bool = False


@dataclass
class _Failure:
    left: int
    code: str
    lasting: bool


class HostDriver:
    """See the module. kernels: Python functions by kernel name, called as `function(grid, block, memory, *arguments)`
    with NumPy scalars; `memory.array(pointer, dtype, shape)` is what a pointer points to. Names and types of arguments
    must be those of the kernel's source.

    mode: "eager" runs work when it is queued; "deferred" as late as CUDA may: when the caller waits for it. Missing
    synchronisation then shows as wrong results. limit: bytes of device memory.
    """

    provider = "host"

    def __init__(
        self,
        kernels: Mapping[str, Callable[..., None]] | None = None,
        mode: str = "eager",
        limit: int = 1 << 30,
        integrated: bool = False,
        compute_capability: tuple[int, int] = (8, 6),
    ) -> None:
        assert mode in ("eager", "deferred"), mode
        self.device = Device(0, "host memory (test double)", compute_capability, integrated)
        self.host = HostMemory()
        self.calls: Counter[str] = Counter()
        self._kernels = dict(kernels or {})
        self._deferred = mode == "deferred"
        self._limit, self._used = limit, 0
        self._living: dict[str, dict[Any, Any]] = {kind: {} for kind in KINDS}
        self._handles = itertools.count(0x1000, 0x10)
        self._failures: dict[str, _Failure] = {}
        self._lost = ""
        self._closed = False
        self._thread = threading.local()
        # One lock for bookkeeping and work alike: one GPU, one thing at a time.
        self._lock = threading.RLock()

    # For tests ---------------------------------------------------------------------------------------------------

    def fail_on(self, method: str, nth: int = 1, code: str = "CUDA_ERROR_LAUNCH_FAILED", lasting: bool = False) -> None:
        """Let the nth call of a method from now on raise CudaError, once. lasting: from then on every call, as after
        an illegal address or a reset."""
        assert hasattr(self, method), method
        self._failures[method] = _Failure(nth, code, lasting)

    def enqueue(self, stream: int, work: Work) -> None:
        """Queue any Python function on a stream, as a library does that is given the stream; it can be captured."""
        with self._call("enqueue"):
            self._enqueue(stream, work)

    @property
    def living(self) -> dict[str, int]:
        return {kind: len(things) for kind, things in self._living.items()}

    # The driver --------------------------------------------------------------------------------------------------

    @contextmanager
    def current(self) -> Iterator[None]:
        assert not self._closed, "current() after close()"
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for pointer in (*self._living["memory"], *self._living["pinned"]):
                self.host.drop(pointer)
            for things in self._living.values():
                things.clear()
            self._used = 0

    def memory(self) -> tuple[int, int]:
        with self._call("memory"):
            return self._limit - self._used, self._limit

    def allocate(self, size: int) -> int:
        with self._call("allocate", capturable=False):
            assert size > 0, size
            if self._used + size > self._limit:
                raise failure(f"allocating {size} bytes of GPU memory", "CUDA_ERROR_OUT_OF_MEMORY")
            pointer, _ = self.host.make(size)
            self._used += size
            self._living["memory"][pointer] = size
            return pointer

    def free(self, pointer: int) -> None:
        with self._call("free", capturable=False):
            size = self._living["memory"].pop(pointer, None)
            assert size is not None, f"{pointer:#x} was not allocated, or is freed twice"
            self._used -= size
            self.host.drop(pointer)

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        with self._call("allocate_pinned", capturable=False):
            assert size > 0, size
            pointer, memory = self.host.make(size)
            self._living["pinned"][pointer] = size
            return memory, pointer

    def free_pinned(self, memory: np.ndarray) -> None:
        with self._call("free_pinned", capturable=False):
            known = self._living["pinned"].pop(memory.ctypes.data, None)
            assert known is not None, "not page-locked memory of this driver, or freed twice"
            self.host.drop(memory.ctypes.data)

    def create_stream(self) -> int:
        with self._call("create_stream"):
            return self._add("stream", _Stream())

    def destroy_stream(self, stream: int) -> None:
        with self._call("destroy_stream"):
            self._run(self._get("stream", stream))  # what is queued still runs
            del self._living["stream"][stream]

    def synchronize(self, stream: int) -> None:
        with self._call("synchronize", capturable=False):
            self._run(self._get("stream", stream))

    def create_event(self, timing: bool = False) -> int:
        with self._call("create_event"):
            return self._add("event", _Event(timing))

    def destroy_event(self, event: int) -> None:
        with self._call("destroy_event"):
            self._get("event", event)
            del self._living["event"][event]

    def record(self, event: int, stream: int) -> None:
        with self._call("record"):
            mark, queued = self._get("event", event), self._get("stream", stream)
            if queued.capture is not None:
                mark.captured = True
                return

            def stamp() -> None:
                if mark.pending is stamp:
                    mark.pending, mark.seconds = None, time.perf_counter()

            mark.captured, mark.stream, mark.pending, mark.seconds = False, queued, stamp, None
            self._enqueue(stream, stamp)

    def wait(self, stream: int, event: int) -> None:
        with self._call("wait"):
            mark, queued = self._get("event", event), self._get("stream", stream)
            if queued.capture is not None:
                if not mark.captured:
                    queued.broken = True
                    raise failure("waiting for an event", "CUDA_ERROR_STREAM_CAPTURE_ISOLATION")
                return
            assert not mark.captured, "the double captures one stream at a time, not those that wait for it"
            if mark.pending is not None and mark.stream is not None:
                self._enqueue(stream, partial(self._run, mark.stream, mark.pending))

    def synchronize_event(self, event: int) -> None:
        with self._call("synchronize_event", capturable=False):
            mark = self._get("event", event)
            if mark.captured:
                raise failure("waiting for an event", "CUDA_ERROR_CAPTURED_EVENT")
            if mark.pending is not None:
                self._run(mark.stream, mark.pending)

    def elapsed(self, first: int, second: int) -> float:
        with self._call("elapsed", capturable=False):
            begin, end = self._get("event", first), self._get("event", second)
            assert begin.timing and end.timing, "made without timing"
            if begin.seconds is None or end.seconds is None:
                raise failure("reading the time between two events", "CUDA_ERROR_NOT_READY")
            return float(end.seconds - begin.seconds)

    def copy_to_device(self, pointer: int, memory: np.ndarray, stream: int) -> None:
        with self._call("copy_to_device"):
            self._enqueue(stream, self._copy(pointer, memory, to_device=True))

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None:
        with self._call("copy_to_host"):
            assert memory.flags.writeable, "the memory to fill cannot be written"
            self._enqueue(stream, self._copy(pointer, memory, to_device=False))

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        with self._call("fill"):
            assert 0 <= value <= 255, value
            self.host.array(pointer, np.uint8, size)
            self._enqueue(stream, lambda: self.host.array(pointer, np.uint8, size).fill(value))

    def compile(self, source: str) -> bytes:
        """Nothing is compiled: the kernels are the registered functions."""
        return source.encode()

    def load_module(self, image: bytes) -> Any:
        with self._call("load_module", capturable=False):
            return self._add("module", signatures(image.decode(errors="replace")))

    def unload_module(self, module: Any) -> None:
        with self._call("unload_module", capturable=False):
            self._get("module", module)
            del self._living["module"][module]

    def function(self, module: Any, name: str) -> Any:
        with self._call("function"):
            known = self._get("module", module)
            if name not in self._kernels or (known is not None and name not in known):
                raise failure(f"finding kernel {name}", "CUDA_ERROR_NOT_FOUND")
            return module, name

    def launch(
        self, function: Any, grid: Grid, block: Grid, stream: int, arguments: Sequence[np.generic], shared: int = 0
    ) -> None:
        with self._call("launch"):
            module, name = function
            known = self._get("module", module)
            for extent, most in ((grid, (2**31 - 1, 65535, 65535)), (block, (1024, 1024, 64))):
                assert len(extent) == 3, extent
                assert all(1 <= n <= limit for n, limit in zip(extent, most, strict=True)), f"{name}: {extent}"
            assert int(np.prod(block)) <= 1024, f"{name}: {block} threads"
            assert 0 <= shared <= SHARED_LIMIT, f"{name}: {shared} bytes of shared memory"
            assert all(isinstance(a, np.generic) for a in arguments), f"{name}: {arguments}"
            given = [str(argument.dtype) for argument in arguments]
            assert known is None or given == known[name], f"{name} takes {known[name]}, not {given}"
            self._enqueue(stream, partial(self._kernels[name], grid, block, self.host, *arguments))

    def begin_capture(self, stream: int) -> None:
        with self._call("begin_capture"):
            queued = self._get("stream", stream)
            if queued.capture is not None:
                raise failure("starting a capture", "CUDA_ERROR_ILLEGAL_STATE")
            queued.capture, queued.thread, queued.broken = [], threading.get_ident(), False

    def end_capture(self, stream: int) -> int:
        with self._call("end_capture", before=lambda: self._abandon(stream)):
            queued = self._get("stream", stream)
            if queued.capture is None:
                raise failure("ending a capture", "CUDA_ERROR_ILLEGAL_STATE")
            if queued.thread != threading.get_ident():
                raise failure("ending a capture", "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD")
            recorded, broken = queued.capture, queued.broken
            self._abandon(stream)
            if broken:
                raise failure("ending a capture", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
            return self._add("graph", tuple(recorded))

    def launch_graph(self, graph: int, stream: int) -> None:
        with self._call("launch_graph"):
            for work in self._get("graph", graph):
                self._enqueue(stream, work)

    def destroy_graph(self, graph: int) -> None:
        with self._call("destroy_graph"):
            self._get("graph", graph)
            del self._living["graph"][graph]

    # Inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, method: str, capturable: bool = True, before: Work = lambda: None) -> Iterator[None]:
        """Around every method: the checks that hold for all. before: done ahead of a failure that was asked for."""
        assert not self._closed, f"{method} after close()"
        assert getattr(self._thread, "depth", 0), f"{method} outside of current()"
        with self._lock:
            self.calls[method] += 1
            asked = self._failures.get(method)
            if self._lost:
                raise failure(method, self._lost)
            if asked is not None:
                asked.left -= 1
                if not asked.left:
                    del self._failures[method]
                    self._lost = asked.code if asked.lasting else ""
                    before()
                    raise failure(method, asked.code)
            if not capturable:
                self._refuse_in_capture(method)
            yield

    def _refuse_in_capture(self, method: str) -> None:
        captured = [s for s in self._living["stream"].values() if s.capture is not None]
        mine = [s for s in captured if s.thread == threading.get_ident()]
        for queued in mine:
            queued.broken = True
        if mine:
            raise failure(method, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _abandon(self, stream: int) -> None:
        queued = self._get("stream", stream)
        queued.capture, queued.broken = None, False

    def _add(self, kind: str, thing: Any) -> int:
        handle = next(self._handles)
        self._living[kind][handle] = thing
        return handle

    def _get(self, kind: str, handle: Any) -> Any:
        assert handle in self._living[kind], f"{handle!r} is no living {kind}"
        return self._living[kind][handle]

    def _enqueue(self, stream: int, work: Work) -> None:
        queued = self._get("stream", stream)
        if queued.capture is not None:
            queued.capture.append(work)
        else:
            queued.queue.append(work)
            if not self._deferred:
                self._run(queued)

    def _run(self, stream: _Stream | None, last: Work | None = None) -> None:
        """Run what is queued on a stream: all of it, or up to one piece of work if that is still to be done."""
        with self._lock:
            while stream is not None and stream.queue and (last is None or last in stream.queue):
                stream.queue.popleft()()

    def _copy(self, pointer: int, memory: np.ndarray, to_device: bool) -> Work:
        assert memory.flags.c_contiguous, "not contiguous"
        self.host.array(pointer, np.uint8, memory.nbytes)
        pinned = self._pinned(memory)

        def copy() -> None:
            assert self._pinned(memory) == pinned, "page-locked memory was freed before its copy was done"
            device = self.host.array(pointer, np.uint8, memory.nbytes)
            host = memory.reshape(-1).view(np.uint8)
            if to_device:
                device[:] = host
            else:
                host[:] = device

        return copy

    def _pinned(self, memory: np.ndarray) -> bool:
        address = memory.ctypes.data
        return any(start <= address < start + size for start, size in self._living["pinned"].items())
