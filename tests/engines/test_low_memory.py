"""build-engine --low-memory: what it asks of TensorRT, in which order, and what it says of the memory there is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mal_trt.artifacts.enginefile import load_engine
from mal_trt.artifacts.flavor import Flavor
from mal_trt.base import memory
from mal_trt.base.errors import RunError
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.base.memory import Memory, read_memory
from mal_trt.cli import app
from mal_trt.engines import EngineOptions, engine, job
from mal_trt.engines.engine import build_engine
from mal_trt.engines.job import Job, prepare
from mal_trt.engines.low_memory import advice, needed

GIB = 1 << 30


@pytest.fixture
def on_a_jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Machine("12.6", (Gpu("Orin", "8.7", 8 * GIB, 3 * GIB),), "")
    monkeypatch.setattr(job, "find_gpus", lambda: found)
    monkeypatch.setattr(job, "open_flavor", lambda name: Flavor(name, "10.3.0", SimpleNamespace()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_it_asks_for(on_a_jetson: None, tmp_path: Path) -> None:
    found = prepare("bundled", tmp_path / "m.engine", EngineOptions(low_memory=True))
    assert (found.opt_level, found.workspace, found.low_memory) == (2, 256 << 20, True)
    assert found.command.endswith("--flavor tensorrt --low-memory")
    told = EngineOptions(low_memory=True, opt_level=0, workspace=GIB)
    found = prepare("bundled", tmp_path / "m.engine", told)
    assert (found.opt_level, found.workspace) == (0, GIB)


def test_one_profile_after_the_other(
    on_a_jetson: None, dynamic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone, into the same timing cache, and all of them at the end."""
    built: list[Job] = []

    def build(wanted: Job, show: object) -> SimpleNamespace:
        built.append(wanted)
        if len(wanted.profiles) > 1:
            raise RunError("far enough")
        return SimpleNamespace(plan=b"")

    monkeypatch.setattr(engine, "build", build)
    said: list[str] = []
    for low_memory in (True, False):
        options = EngineOptions(flavor="tensorrt", batch=(1, 2, 4), low_memory=low_memory)
        with pytest.raises(RunError, match="far enough"):
            build_engine(dynamic, tmp_path / "m.engine", options, say=said.append)
    assert [[profile.grid for profile in wanted.profiles] for wanted in built] == [[2], [4], [8], [2, 4, 8], [2, 4, 8]]
    assert len({wanted.timing_cache for wanted in built}) == 1
    assert sum(line.startswith("memory: ") for line in said) == 1
    assert [line for line in said if line.startswith("measuring")][1] == "measuring batch 4, mask-head grid 4 alone"


def test_advice(on_a_jetson: None, tmp_path: Path) -> None:
    found = prepare("bundled", tmp_path / "m.engine", EngineOptions(low_memory=True))
    wanted = needed(found.onnx, found.workspace)
    assert 512 << 20 < wanted < 640 << 20, "libraries, scratch memory and 4 times the model"

    def said(available: int | None, swap: int | None) -> list[str]:
        return list(advice(found, Memory(available, swap)))

    assert said(None, None) == []
    assert said(4 * GIB, 0) == ["memory: 4.0 GiB free and 0.0 GiB of swap; the build takes about 0.6 GiB"]
    assert len(said(wanted - 1, GIB)) == 2 and "smaller --batch" in said(wanted - 1, GIB)[1]
    assert "swapon" in said(wanted - 1, 0)[2]


def test_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "MEMINFO", told)
    assert read_memory() == Memory(None, None)
    told.write_text("MemTotal:  7802000 kB\nMemAvailable:  3000000 kB\nSwapFree:        0 kB\nHugePages_Total:  0\n")
    assert read_memory() == Memory(3_000_000 * 1024, 0)


@pytest.mark.slow
def test_a_real_engine(dynamic: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "low.engine"
    words = ["build-engine", dynamic, "-o", out, "--flavor", "tensorrt-rtx", "--batch", "1,1,2", "--low-memory"]
    dry = CliRunner().invoke(app, [str(word) for word in (*words, "--dry-run")])
    assert dry.exit_code == 0 and "workspace: 256 MiB" in dry.stdout and "memory: " in dry.stdout, dry.output
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "GiB of swap; the build takes about" in done.stderr
    plan, manifest = load_engine(out)
    assert (manifest.opt_level, manifest.workspace) == (2, 256 << 20)
    usual = build_engine(dynamic, tmp_path / "usual.engine", EngineOptions(flavor="tensorrt-rtx", batch=(1, 1, 2)))
    assert manifest.profiles == usual.built.manifest.profiles and len(manifest.profiles) == 3
    assert abs(len(plan) - usual.built.manifest.plan_bytes) < 0.2 * len(plan)
