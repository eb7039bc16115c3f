"""What is decided before a build, on machines that are made up: GPUs, memory, and which TensorRT there is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.flavor import Flavor
from mal_trt.artifacts.manifest import Profile, shapes
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.engines import EngineOptions, job
from mal_trt.engines.job import Job, prepare
from mal_trt.engines.monitor import Monitor
from mal_trt.engines.profiles import default_batch, profiles
from mal_trt.engines.trial import runs_here

ORIN = Gpu("Orin", "8.7", 8 << 30, 4 << 30)
TURING = Gpu("T4", "7.5", 16 << 30, 15 << 30)
H200 = Gpu("NVIDIA H200", "9.0", 141 << 30, 139 << 30)
BASE = Contract("vit-mae-base/16", "patch", 512)
VERSIONS = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116"}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """made_up(gpu, *flavors): a machine with that GPU, or none, and those flavours installed."""

    def set_up(gpu: Gpu | None, *flavors: str) -> None:
        found = Machine("12.6", (gpu,), "") if gpu is not None else Machine(None, (), "no NVIDIA driver")
        library = SimpleNamespace(ComputeCapability=SimpleNamespace(SM75=0, SM86=1, SM120=2))

        def open_flavor(name: str) -> Flavor:
            if name not in flavors:
                raise RunError(f"{name} is not installed")
            return Flavor(name, VERSIONS[name], library)

        monkeypatch.setattr(job, "find_gpus", lambda: found)
        monkeypatch.setattr(job, "open_flavor", open_flavor)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    return set_up


def decide(tmp_path: Path, **options: object) -> Job:
    return prepare("bundled", tmp_path / "m.engine", EngineOptions(**options))  # type: ignore[arg-type]


def test_a_jetson(made_up: object, tmp_path: Path) -> None:
    made_up(ORIN, "tensorrt", "tensorrt-rtx")  # type: ignore[operator]
    found = decide(tmp_path)
    assert (found.flavor.name, found.runs_on, found.flags) == ("tensorrt", ("8.7",), ())
    assert found.workspace == 2 << 30
    assert found.timing_cache == tmp_path / "cache" / "mal-trt" / "timing-tensorrt-10.3.0-orin-8.7.bin"
    assert found.command == "mal-trt build-engine bundled -o m.engine --flavor tensorrt"
    wide = decide(tmp_path, hardware_compatible=True, version_compatible=True, workspace=1 << 20)
    assert (wide.runs_on, wide.workspace) == (("8.0+",), 1 << 20)
    assert wide.flags == ("VERSION_COMPATIBLE", "AMPERE_PLUS")
    assert wide.command.endswith("--workspace 1048576 --version-compatible --hardware-compatible")
    with pytest.raises(InputError, match=r"builds for the GPU it runs on, here 8\.7"):
        decide(tmp_path, compute_capabilities=("8.6",))


def test_where_an_engine_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name that other verbs know for an engine's, in a folder that can be written to."""
    (tmp_path / "d.engine").mkdir()
    for name, says in (
        ("model", "end in .engine or .plan"),
        ("model.trt", "end in .engine or .plan"),
        ("m.onnx", "end in .engine or .plan"),
        ("d.engine", "a folder"),
        ("a/m.engine", "its folder does not exist"),
    ):
        with pytest.raises(InputError, match=says):
            job.check_output(tmp_path / name, tmp_path / "m.onnx")
    job.check_output(tmp_path / "M.PLAN", tmp_path / "m.onnx")
    monkeypatch.setattr("mal_trt.base.outputs.os.access", lambda *_: False)
    with pytest.raises(InputError, match="its folder cannot be written to"):
        job.check_output(tmp_path / "m.engine", tmp_path / "m.onnx")


def test_which_flavor(made_up: object, tmp_path: Path) -> None:
    for gpu, installed, chosen in (
        (H200, ("tensorrt", "tensorrt-rtx"), "tensorrt"),
        (H200, ("tensorrt-rtx",), "tensorrt-rtx"),
        (None, ("tensorrt", "tensorrt-rtx"), "tensorrt-rtx"),
    ):
        made_up(gpu, *installed)  # type: ignore[operator]
        assert decide(tmp_path).flavor.name == chosen
    made_up(None, "tensorrt")  # type: ignore[operator]
    for flavor in ("auto", "tensorrt"):
        with pytest.raises(RunError, match="no NVIDIA driver: TensorRT builds only on the GPU"):
            decide(tmp_path, flavor=flavor)
    made_up(H200)  # type: ignore[operator]
    with pytest.raises(RunError, match="tensorrt is not installed"):
        decide(tmp_path)


def test_turing(made_up: object, tmp_path: Path) -> None:
    made_up(TURING, "tensorrt", "tensorrt-rtx")  # type: ignore[operator]
    with pytest.raises(InputError, match="on an Ampere GPU or newer"):
        decide(tmp_path, hardware_compatible=True)
    (note,) = decide(tmp_path, flavor="tensorrt-rtx").notes
    assert "will not run on this machine's GPU (7.5)" in note
    assert decide(tmp_path, flavor="tensorrt-rtx", compute_capabilities=("7.5",)).notes == ()


def test_a_gpu_that_rtx_does_not_name(made_up: object, tmp_path: Path) -> None:
    """An engine for all GPUs from Ampere on is written untried there: minutes of building are not lost to a refusal."""
    made_up(H200, "tensorrt-rtx")  # type: ignore[operator]
    job = decide(tmp_path)
    (note,) = job.notes
    assert "does not name this machine's GPU (9.0)" in note and job.runs_on == ("8.0+",) and not runs_here(job)
    made_up(replace(H200, compute_capability="8.6"), "tensorrt-rtx")  # type: ignore[operator]
    assert decide(tmp_path).notes == () and runs_here(decide(tmp_path))


def test_rtx_has_no_timing_cache(made_up: object, tmp_path: Path) -> None:
    made_up(None, "tensorrt-rtx")  # type: ignore[operator]
    found = decide(tmp_path, timing_cache=tmp_path / "t.bin", compute_capabilities=("8.6", "12.0"))
    assert found.timing_cache is None and found.targets == found.runs_on == ("8.6", "12.0")
    assert "--timing-cache has no effect" in found.notes[0]


def test_batches_follow_the_memory() -> None:
    half = Contract("vit-mae-base/16", "patch", 512, precision="fp16")
    assert default_batch(BASE, None) == default_batch(BASE, 139 << 30) == (1, 16, 32)
    assert default_batch(BASE, 4 << 30) == (1, 4, 8)
    assert default_batch(half, 4 << 30) == (1, 8, 16)
    assert default_batch(BASE, 1 << 20) == (1, 1, 1)
    assert default_batch(Contract("tiny", "patch", 192), 4 << 30) == (1, 16, 32)


def test_profiles_are_the_sizes_of_boxes() -> None:
    small, medium, large = profiles(BASE, (1, 2, 4))
    assert [p.grid for p in (small, medium, large)] == [16, 32, 64]
    assert shapes(BASE, medium) == {
        "image": ((1, 3, 512, 512), (2, 3, 512, 512), (4, 3, 512, 512)),
        "head_grid": ((1, 1, 32, 32),) * 3,
    }
    baked = Contract("vit-mae-base/16", "patch", 512, head="large")
    assert profiles(baked, (1, 2, 4)) == (Profile((1, 2, 4)),)
    assert list(shapes(baked, Profile((1, 2, 4)))) == ["image"]


def test_progress_of_nested_phases() -> None:
    shares: list[float] = []
    monitor = Monitor(shares.append)
    methods = monitor.attach(SimpleNamespace(subclass=lambda base, **methods: methods))  # type: ignore[arg-type]
    methods["phase_start"](None, "all", None, 2)
    methods["phase_start"](None, "one", "all", 4)
    assert methods["step_complete"](None, "one", 1) is True
    methods["phase_finish"](None, "one")
    methods["step_complete"](None, "all", 0)
    methods["phase_start"](None, "two", "all", 2)
    methods["step_complete"](None, "two", 0)
    assert shares == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75]
    monitor.stop.set()
    assert methods["step_complete"](None, "two", 1) is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"batch": batch}, "expected least, best and most") for batch in (8, (0, 1, 2), (4, 2, 8), (1, 1, 1 << 31))],
        *[({"workspace": size}, "--workspace .*: expected bytes") for size in (0, -1, 1.5e9, 1 << 63)],
    ],
)
def test_sizes_that_no_library_can_take(
    options: dict[str, object], message: str, made_up: object, tmp_path: Path
) -> None:
    made_up(ORIN, "tensorrt")  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        decide(tmp_path, **options)


def test_a_timing_cache_is_no_model(made_up: object, tmp_path: Path) -> None:
    made_up(ORIN, "tensorrt")  # type: ignore[operator]
    model = shutil.copy(resolve_model("bundled"), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.onnx: is an input and would be overwritten"):
        prepare(model, tmp_path / "m.engine", EngineOptions(timing_cache=model))


@pytest.mark.parametrize("name", ["m.engine.json", "m.engine.parity.npz"])
def test_what_goes_beside_an_engine_is_looked_at_first(name: str, made_up: object, tmp_path: Path) -> None:
    """Or the engine that was there would be replaced, and lose its manifest."""
    made_up(ORIN, "tensorrt")  # type: ignore[operator]
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: a folder"):
        decide(tmp_path)
