"""The accuracy check and the ladder of precisions, ONNX Runtime standing in for the GPU that runs the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from host_cuda import HostDriver
from host_tensorrt import host_flavor, write_engine
from mal_trt.artifacts.enginefile import load_engine
from mal_trt.artifacts.manifest import Manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.parity import check
from mal_trt.artifacts.parity_file import engine_parity_path, parity_path
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.cuda import open as cuda_open
from mal_trt.engines import EngineOptions, build_engine, job, trial
from mal_trt.engines.build import Built
from mal_trt.engines.job import Job
from mal_trt.engines.precision import WIDE_ATTENTION
from mal_trt.engines.trial import Open, precision
from mal_trt.geometry.boxes import SizeClass

RTX = EngineOptions(flavor="tensorrt-rtx", batch=(1, 2, 4))
BUNDLED = resolve_model("bundled")


LAYERS = """{"Layers": [
 {"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Half"}], "Outputs": [{"Format/Datatype": "Float"}]},
 {"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Float"}, {"Format/Datatype": "Int8"}]},
 {"LayerType": "kgen", "Inputs": [{"Format/Datatype": "Row major linear FP32 format"}]},
 {"LayerType": "kgen", "Inputs": [{"Format/Datatype": "E4M3 FP8"}]},
 {"LayerType": "Reformat", "Inputs": [{"Format/Datatype": "UInt8"}]},
 {"LayerType": "Constant", "Inputs": []}, "a name alone"
], "Bindings": []}"""


@pytest.fixture(autouse=True)
def _with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds are decided as on a machine with a GPU; what runs on it is `standing_in`."""
    gpu = Gpu("made up", "8.6", 8 << 30, 8 << 30)
    monkeypatch.setattr(job, "find_gpus", lambda: Machine("13.0", (gpu,), ""))


class StandingIn:
    """Plays the GPU: the ONNX file an engine was built of, on the CPU, its logits moved by `spoil`."""

    def __init__(self, built: Built, wanted: Job, spoil: Callable[[Manifest], float]) -> None:
        assert len(built.plan) == built.manifest.plan_bytes
        self._backend = open_backend(wanted.onnx, device="cpu")
        self._moved = np.float32(spoil(built.manifest))

    def run(self, image: np.ndarray, size: SizeClass) -> np.ndarray:
        return self._backend.run(image, size) + self._moved

    def layers(self) -> str:
        return LAYERS

    def close(self) -> None:
        self._backend.close()


def standing_in(spoil: Callable[[Manifest], float]) -> Open:
    return lambda built, wanted: StandingIn(built, wanted, spoil)


def test_a_good_engine_passes(tmp_path: Path) -> None:
    run = standing_in(lambda manifest: 0.0)
    report = build_engine("bundled", tmp_path / "m.engine", RTX, open_plan=run)
    _, manifest = load_engine(report.path)
    assert manifest.parity["status"] == "passed"
    assert manifest.parity["mask_iou"] > 0.9999 and manifest.parity["logit_error"] < 1e-4
    assert manifest.parity["crops"] == 4
    assert manifest.precision_source == "engine"
    assert manifest.precision == {"gemm": {"fp16": 1, "int8": 1}, "kgen": {"fp32": 1, "fp8": 1}}
    assert engine_parity_path(report.path).read_bytes() == parity_path(BUNDLED).read_bytes()


def test_fp16_is_refused_and_fp32_kept(tmp_path: Path) -> None:
    said: list[str] = []
    run = standing_in(lambda manifest: 0.0 if manifest.contract.precision == "fp32" else 3.0)
    options = EngineOptions(flavor="tensorrt-rtx", batch=(1, 2, 4), precision="fp16")
    report = build_engine("bundled", tmp_path / "m.engine", options, open_plan=run, say=said.append)
    _, manifest = load_engine(report.path)
    assert report.precision == manifest.contract.precision == "fp32"
    assert manifest.parity["status"] == "passed"
    refused = [text for text in said if text.startswith("refused")]
    assert [text.split(":")[0] for text in refused] == ["refused, fp16", f"refused, {WIDE_ATTENTION}"]


@pytest.mark.parametrize("bad", [3.0, float("nan")])
def test_no_engine_is_kept_unless_asked(bad: float, tmp_path: Path) -> None:
    run = standing_in(lambda manifest: bad)
    out = tmp_path / "m.engine"
    with pytest.raises(RunError, match=r"no engine kept.*--keep-anyway"):
        build_engine("bundled", out, RTX, open_plan=run)
    assert list(tmp_path.iterdir()) == []
    report = build_engine("bundled", out, RTX, open_plan=run, keep_anyway=True)
    _, manifest = load_engine(out)
    assert report.verdict is not None and not report.verdict.passed
    assert manifest.parity["status"] == "kept anyway"
    assert (manifest.parity["logit_error"] is None) == (bad != 3.0)


def test_batches_and_grids(dynamic: Path) -> None:
    """Every crop in every size class, never more at once than the engine takes."""
    backend = open_backend(dynamic, device="cpu")
    seen: list[tuple[int, SizeClass]] = []

    def run(image: np.ndarray, size: SizeClass) -> np.ndarray:
        seen.append((len(image), size))
        return backend.run(image, size)

    verdict = check(run, parity_path(dynamic), backend.contract, most=3)
    assert seen == [(n, size) for size in SizeClass for n in (3, 1)]
    assert verdict.passed and verdict.crops == 12


def test_references_that_cannot_be_used(tmp_path: Path) -> None:
    backend = open_backend("bundled", device="cpu")
    (tmp_path / "m.parity.npz").write_bytes(b"PK no archive")
    (tmp_path / "cut.parity.npz").write_bytes(parity_path(BUNDLED).read_bytes()[:5000])
    np.savez(tmp_path / "other.parity.npz", image=np.zeros((1, 3, 8, 8)), size_classes=[0, 1], logits=np.zeros((1, 1)))
    for name in ("m", "missing", "cut", "other"):
        path = tmp_path / f"{name}.parity.npz"
        with pytest.raises(InputError, match="not a parity file"):
            check(backend.run, path, backend.contract, most=4)
    with pytest.raises(InputError, match="the engine gives"):
        check(lambda image, size: np.zeros((1, 1, 2, 2), np.float32), parity_path(BUNDLED), backend.contract, 4)


def test_an_engine_for_other_gpus_is_not_tried(tmp_path: Path) -> None:
    def never(built: Built, wanted: Job) -> StandingIn:
        raise AssertionError("tried on a GPU it is not for")

    options = EngineOptions(flavor="tensorrt-rtx", batch=(1, 2, 4), compute_capabilities=("8.9",))
    report = build_engine("bundled", tmp_path / "m.engine", options, open_plan=never)
    assert load_engine(report.path)[1].parity == {"status": "unchecked"}


def test_keep_anyway_of_an_engine_that_was_not_tried(tmp_path: Path) -> None:
    report = build_engine("bundled", tmp_path / "m.engine", RTX, keep_anyway=True)
    assert load_engine(report.path)[1].parity == {"status": "unchecked", "keep_anyway": True}


def test_a_model_without_a_parity_file(tmp_path: Path) -> None:
    """And one of an earlier engine of that name goes: it is not this one's."""
    (tmp_path / "alone.onnx").write_bytes(BUNDLED.read_bytes())
    engine_parity_path(tmp_path / "m.engine").write_bytes(b"an earlier engine's")
    report = build_engine(tmp_path / "alone.onnx", tmp_path / "m.engine", RTX, open_plan=standing_in(lambda _: 0.0))
    _, manifest = load_engine(report.path)
    assert manifest.parity == {"status": "unchecked", "reason": "alone.parity.npz is not beside the model"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.onnx", "m.engine", "m.engine.json"]


def test_an_inspector_that_tells_nothing() -> None:
    for text in ("", "no JSON", "[]", '{"Layers": ["a", "b"]}', '{"Layers": [{"LayerType": "gemm"}]}'):
        assert precision(text) == {}


def test_how_engines_are_opened_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the test doubles of CUDA and TensorRT: tried, read and closed."""
    said: list[str] = []
    monkeypatch.setattr(trial, "find_gpus", lambda: Machine(None, (), "no NVIDIA driver"))
    assert trial.opener(said.append) is None and said == []
    monkeypatch.setattr(trial, "find_gpus", job.find_gpus)

    def none(index: int = 0) -> HostDriver:
        raise InputError("no package that talks to CUDA is installed")

    monkeypatch.setattr(cuda_open, "open_driver", none)
    assert trial.opener(said.append) is None
    assert said == ["the engine is not tried on the GPU: no package that talks to CUDA is installed"]

    driver = HostDriver()
    monkeypatch.setattr(cuda_open, "open_driver", lambda index=0: next(drivers))
    drivers = iter((HostDriver(), driver))
    open_plan = trial.opener(said.append)
    assert open_plan is not None
    engine = write_engine(BUNDLED, tmp_path / "m.engine", parity={"status": "unchecked"})
    plan, manifest = load_engine(engine)

    wanted = replace(job.prepare("bundled", engine, RTX), flavor=host_flavor(driver), profiles=manifest.profiles)
    built, verdict = trial.try_out(open_plan, Built(plan, manifest, 0.0, False, ()), wanted, parity_path(BUNDLED))
    assert verdict is not None and verdict.passed and verdict.mask_iou == 1.0
    assert built.manifest.precision == {"gemm": {"fp16": 1}} and built.manifest.precision_source == "engine"
    with pytest.raises(AssertionError, match="after close"), driver.current():
        pass
