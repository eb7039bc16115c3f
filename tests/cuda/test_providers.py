"""Both drivers, over a stand-in for libcuda: cuda-python as it is installed, pycuda as a double of that package."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.cuda import cuda_python, nvrtc, with_pycuda
from mal_trt.cuda import open as opening
from mal_trt.cuda.driver import ADVICE, SPOILT, Driver
from mal_trt.cuda.open import choose_provider, open_driver

NONE = {"memory": 0, "pinned": 0, "stream": 0, "event": 0, "module": 0, "graph": 0}
both = pytest.mark.parametrize("provider", ["cuda-python", "pycuda"])


@both
def test_work(run: Any, provider: str) -> None:
    """Up, kernel, fill, down; events; nested and by two threads; everything freed."""
    code = """
driver = open_driver()
show([driver.provider, vars(driver.device)])
with driver.current(), driver.current():
    stream, pointer = driver.create_stream(), driver.allocate(64)
    flags = ctypes.c_uint()
    library.cuStreamGetFlags(ctypes.c_void_p(stream), ctypes.byref(flags))
    up, mapped = driver.allocate_pinned(64)
    show([flags.value, pointer % 256, up.shape, str(up.dtype), mapped == up.ctypes.data, driver.memory()])
    up.view(np.float32)[:] = np.arange(16)
    driver.copy_to_device(pointer, up, stream)
    module = driver.load_module(b"\\x7fELF")
    scale, down = driver.function(module, "scale"), np.zeros(16, np.float32)
    driver.launch(scale, (1, 1, 1), (16, 1, 1), stream, [np.uint64(pointer), np.float32(3), np.int32(8)])
    driver.fill(pointer + 60, 0, 4, stream)
    driver.copy_to_host(down, pointer, stream)
    driver.synchronize(stream)
    show(down.tolist())
    first, second, other = driver.create_event(True), driver.create_event(True), driver.create_stream()
    driver.record(first, stream)
    driver.record(second, stream)
    driver.wait(other, second)
    driver.synchronize_event(second)
    show(0 <= driver.elapsed(first, second) < 1)
    untimed = driver.create_event()
    driver.record(untimed, stream)
    show(error(driver.elapsed, first, untimed))
def finish():
    with driver.current():
        driver.free(pointer)
        driver.free_pinned(up)
        for event in (first, second, untimed):
            driver.destroy_event(event)
        driver.destroy_stream(stream)
        driver.destroy_stream(other)
        global scale
        del scale
        driver.unload_module(module)
show([driver.living, living()])
thread = threading.Thread(target=finish)
thread.start()
thread.join()
show([driver.living, living(), library.fake_depth()])
"""
    opened, made, values, timed, untimed, before, after = run(code, provider)
    name = "libcuda.c (test double)"
    device = {"index": 0, "name": name, "compute_capability": [8, 6], "integrated": False}
    assert opened == [provider, device]
    assert made == [1, 0, [64], "uint8", True, [(1 << 24) - 64, 1 << 24]]
    assert values == [0, 3, 6, 9, 12, 15, 18, 21, 8, 9, 10, 11, 12, 13, 14, 0]
    assert timed and "reading the time between two events failed with CUDA_ERROR_INVALID_HANDLE" in untimed
    held = {"memory": 1, "pinned": 1, "stream": 2, "event": 3, "module": 1, "graph": 0}
    assert before == [held, held]
    assert after == [NONE, NONE, 0]


@both
def test_errors_name_operation_and_code(run: Any, provider: str) -> None:
    code = """
driver = open_driver()
with driver.current():
    show(error(driver.allocate, 1 << 30))
    show(error(driver.load_module, b"junk"))
    show(error(driver.function, driver.load_module(b"\\x7fELF"), "none"))
    show(error(driver.free, 4096))
    stream = driver.create_stream()
    library.fake_fail(b"cuStreamSynchronize", 700, 0)
    show(error(driver.synchronize, stream))
    library.fake_fail(b"cuStreamSynchronize", 9999, 0)  # an error of a driver newer than the package
    show(error(driver.synchronize, stream))
    driver.synchronize(stream)
"""
    memory, image, name, freed, address, unknown = run(code, provider)
    assert memory.startswith(
        "CUDA: allocating 1073741824 bytes of GPU memory failed with CUDA_ERROR_OUT_OF_MEMORY; use"
    )
    assert image == "CUDA: loading kernels failed with CUDA_ERROR_INVALID_IMAGE"
    assert name == "CUDA: finding kernel none failed with CUDA_ERROR_NOT_FOUND"
    assert freed == "CUDA: releasing memory 4096 failed with CUDA_ERROR_INVALID_HANDLE"
    assert address == f"CUDA: waiting for a stream failed with CUDA_ERROR_ILLEGAL_ADDRESS; {SPOILT}"
    assert unknown.startswith("CUDA: waiting for a stream failed with ")


@both
def test_the_first_error_is_the_one_that_shows(run: Any, provider: str) -> None:
    """After it a GPU refuses every call, that which leaves the context too."""
    code = """
driver = open_driver()
def work():
    with driver.current():
        library.fake_fail(b"cuCtxPopCurrent", 700, 0)
        driver.free(4096)
show(error(work))
"""
    assert run(code, provider) == ["CUDA: releasing memory 4096 failed with CUDA_ERROR_INVALID_HANDLE"]


def test_advice_is_for_errors_that_cuda_has() -> None:
    driver = pytest.importorskip(cuda_python.MODULE, reason="needs cuda-bindings")
    known = driver.CUresult.__members__
    assert set(ADVICE) <= set(known) >= set(with_pycuda.NAMES.values())
    assert set(ADVICE) <= set(with_pycuda.NAMES.values())


@both
@pytest.mark.parametrize("ending", ["driver.close(); driver.close()", "del driver; gc.collect()", ""])
def test_what_is_left_goes(run: Any, provider: str, ending: str) -> None:
    """By close(), by dropping the driver, and at the interpreter's end (shown by a hook that runs after ours)."""
    code = f"""
import atexit
now = lambda: [living(), library.fake_depth()]
atexit.register(lambda: show([*now(), library.fake_retained()]))  # the first that is registered is called last
driver = open_driver()
with driver.current():
    stream = driver.create_stream()
    driver.create_event(), driver.allocate(10), driver.allocate_pinned(10), driver.load_module(b"\\x7fELF")
    library.fake_fail(b"cuEventDestroy", 700, 0)  # goes on with the rest
    driver.fill(driver.allocate(10), 0, 10, stream)
show(driver.living)
{ending}
show(now())
"""
    held, now, end = run(code, provider)
    assert held == {**NONE, "memory": 2, "pinned": 1, "stream": 1, "event": 1, "module": 1}
    gone = {**NONE, "event": 1}  # the one whose destruction failed
    assert now == [gone, 0] or not ending
    # pycuda's context stays for the process; detached at its end, it is left current.
    assert end == [gone, int(provider == "pycuda"), 0]


def test_after_close_and_a_gpu_that_does_not_open(run: Any) -> None:
    code = """
driver = open_driver()
driver.close()
show(error(lambda: driver.current().__enter__()))
for name in (b"cuDevicePrimaryCtxRetain", b"cuInit"):
    library.fake_fail(name, 2, int(name == b"cuInit"))  # which find_gpus() calls before
    show([error(open_driver), library.fake_retained()])
"""
    closed, retained, initialised = run(code)
    assert "the driver was closed" in closed
    assert "opening the GPU failed with CUDA_ERROR_OUT_OF_MEMORY" in retained[0] and retained[1] == 0
    assert "starting CUDA failed with CUDA_ERROR_OUT_OF_MEMORY" in initialised[0] and initialised[1] == 0


def test_graphs(run: Any) -> None:
    """Recorded, replayed; a capture that was spoilt leaves its stream usable."""
    code = """
driver = open_driver()
with driver.current():
    stream, pointer = driver.create_stream(), driver.allocate(4)
    down = np.zeros(4, np.uint8)
    driver.fill(pointer, 1, 4, stream)
    driver.begin_capture(stream)
    driver.fill(pointer, 2, 4, stream)
    graph = driver.end_capture(stream)
    driver.copy_to_host(down, pointer, stream)
    show(down.tolist())
    driver.launch_graph(graph, stream)
    driver.copy_to_host(down, pointer, stream)
    show([down.tolist(), driver.living["graph"]])
    driver.destroy_graph(graph)
    driver.begin_capture(stream)
    show([error(driver.allocate, 4), error(driver.end_capture, stream)])
    driver.begin_capture(stream)
    library.fake_fail(b"cuGraphInstantiateWithFlags", 2, 0)
    show(error(driver.end_capture, stream))
    driver.fill(pointer, 3, 4, stream)
    driver.copy_to_host(down, pointer, stream)
    driver.synchronize(stream)
    show([down.tolist(), living()["graph"]])
"""
    recorded, replayed, spoilt, refused, after = run(code)
    assert recorded == [1] * 4
    assert replayed == [[2] * 4, 1]
    assert "CAPTURE_UNSUPPORTED" in spoilt[0] and "CAPTURE_INVALIDATED" in spoilt[1]
    assert "making a graph executable failed with CUDA_ERROR_OUT_OF_MEMORY" in refused
    assert after == [[3] * 4, 0]


def test_pycuda_has_no_graphs(run: Any) -> None:
    code = """
driver = open_driver()
with driver.current():
    stream = driver.create_stream()
    show(error(driver.begin_capture, stream))
    driver.synchronize(stream)
"""
    (said,) = run(code, "pycuda")
    assert (
        said == "CUDA: using a graph failed with CUDA_ERROR_NOT_SUPPORTED; pycuda has no graphs; install cuda-bindings"
    )


def test_other_threads_run_while_one_waits(run: Any) -> None:
    """The bindings must let go of Python's lock: before 12.9.1 they did not."""
    code = """
driver = open_driver()
with driver.current():
    stream = driver.create_stream()
    library.fake_sleep(300)
    seen, stop = [], threading.Event()
    def count():
        while not stop.wait(0.01):
            seen.append(time.perf_counter())
    thread = threading.Thread(target=count)
    thread.start()
    began = time.perf_counter()
    driver.synchronize(stream)
    took = time.perf_counter() - began
    stop.set()
    thread.join()
    library.fake_sleep(0)
    show([took, sum(began < moment < began + took for moment in seen)])
"""
    ((took, seen),) = run(code)
    assert took >= 0.3 and seen >= 3


def test_every_method_is_there() -> None:
    """Same names, parameters and types as the interface, in both providers."""
    for name, member in vars(Driver).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            for kind in (cuda_python.CudaPythonDriver, with_pycuda.PycudaDriver):
                offered = inspect.signature(inspect.unwrap(getattr(kind, name)))
                assert list(offered.parameters) == list(inspect.signature(member).parameters), (kind, name)


def test_names_of_cuda_bindings() -> None:
    """Every name that is used exists in what is installed, and every name that the sources use is in the tables."""
    pytest.importorskip("cuda.bindings")
    driver, compiler = import_module(cuda_python.MODULE), import_module(nvrtc.MODULE)
    lacking = [name for name in cuda_python.FUNCTIONS if not hasattr(driver, name)]
    lacking += [name for name in nvrtc.FUNCTIONS if not hasattr(compiler, name)]
    for enumeration, members in cuda_python.MEMBERS.items():
        lacking += [member for member in members if not hasattr(getattr(driver, enumeration), member)]
    assert not lacking
    used = set(re.findall(r"cuda\.(cu[A-Z]\w+)", inspect.getsource(cuda_python)))
    assert used == set(cuda_python.FUNCTIONS)
    used = set(re.findall(r"(?:nvrtc|module)\.(nvrtc[A-Z]\w+)", inspect.getsource(nvrtc)))
    assert used <= set(nvrtc.FUNCTIONS)


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAL_TRT_CUDA", raising=False)
    offered: set[str] = {"cuda.bindings", "pycuda"}
    monkeypatch.setattr(opening, "_present", lambda package: package in offered)
    assert choose_provider() == "cuda-python" and choose_provider("pycuda") == "pycuda"
    monkeypatch.setenv("MAL_TRT_CUDA", "pycuda")
    assert choose_provider() == "pycuda" and choose_provider("cuda-python") == "cuda-python"
    offered.remove("pycuda")
    with pytest.raises(InputError, match=r"MAL_TRT_CUDA pycuda: not installed; run: pip install"):
        choose_provider()
    monkeypatch.setenv("MAL_TRT_CUDA", "cupy")
    with pytest.raises(InputError, match=r"MAL_TRT_CUDA 'cupy': expected one of cuda-python, pycuda"):
        choose_provider()
    monkeypatch.setenv("MAL_TRT_CUDA", "")
    offered.clear()
    with pytest.raises(InputError, match="no package that talks to CUDA"):
        choose_provider()


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAL_TRT_CUDA", raising=False)
    monkeypatch.setattr(opening, "_present", lambda package: True)
    monkeypatch.setattr(opening, "find_gpus", lambda free=True: Machine(None, (), "no NVIDIA driver"))
    with pytest.raises(InputError, match="no usable GPU: no NVIDIA driver"):
        open_driver()
    monkeypatch.setattr(opening, "find_gpus", lambda free=True: Machine("13.0", (Gpu("A", "8.6", 1, 1),), ""))
    with pytest.raises(InputError, match="GPU 1: this machine's GPUs are 0 to 0"):
        open_driver(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a3f")
    with pytest.raises(InputError, match=r"0 to 0 \(CUDA_VISIBLE_DEVICES='GPU-8a3f' leaves only those GPUs"):
        open_driver(1)
    monkeypatch.setitem(sys.modules, "pycuda", None)  # installed, but it does not load
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(RunError, match="pycuda cannot be loaded"):
        open_driver(provider="pycuda")


def test_importing_touches_no_cuda() -> None:
    # Some versions of cuda-bindings load their first module at Python's start.
    code = """
import importlib, pkgutil, sys
before = set(sys.modules)
import mal_trt.cuda
for module in pkgutil.iter_modules(mal_trt.cuda.__path__, "mal_trt.cuda."):
    importlib.import_module(module.name)
heavy = ("cuda", "pycuda", "torch", "tensorrt", "cupy")
print([name for name in set(sys.modules) - before if name.split(".")[0] in heavy])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
