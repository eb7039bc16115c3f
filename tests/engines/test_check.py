"""The accuracy check and the ladder of precisions, ONNX Runtime standing in for the GPU that runs the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from mal_trt.backends import open_backend
from mal_trt.boxes import SizeClass
from mal_trt.enginefile import load_engine
from mal_trt.engines import Options, build_engine
from mal_trt.engines.precision import WIDE_ATTENTION
from mal_trt.errors import InputError, RunError
from mal_trt.manifest import Manifest
from mal_trt.models import resolve_model
from mal_trt.parity import Run, check, reference_path

RTX = Options(flavor="tensorrt-rtx", batch=(1, 2, 4))
BUNDLED = resolve_model("bundled")


def standing_in(folder: Path, spoil: Callable[[Manifest], float]) -> Callable[[bytes, Manifest], Run]:
    """Runs the ONNX file an engine was built of on the CPU; spoil says how far its logits are moved."""

    def open_plan(plan: bytes, manifest: Manifest) -> Run:
        assert len(plan) == manifest.plan_bytes
        onnx = folder / manifest.onnx
        backend = open_backend(onnx if onnx.is_file() else BUNDLED, device="cpu")
        moved = np.float32(spoil(manifest))
        return lambda image, size: backend.run(image, size) + moved

    return open_plan


def test_a_good_engine_passes(tmp_path: Path) -> None:
    run = standing_in(tmp_path, lambda manifest: 0.0)
    report = build_engine("bundled", tmp_path / "m.engine", RTX, open_plan=run)
    _, manifest = load_engine(report.path)
    assert manifest.parity["status"] == "passed"
    assert manifest.parity["mask_iou"] > 0.9999 and manifest.parity["logit_error"] < 1e-4
    assert manifest.parity["crops"] == 4


def test_fp16_is_refused_and_fp32_kept(tmp_path: Path) -> None:
    said: list[str] = []
    run = standing_in(tmp_path, lambda manifest: 0.0 if manifest.contract.precision == "fp32" else 3.0)
    options = Options(flavor="tensorrt-rtx", batch=(1, 2, 4), precision="fp16")
    report = build_engine("bundled", tmp_path / "m.engine", options, open_plan=run, say=said.append)
    _, manifest = load_engine(report.path)
    assert report.precision == manifest.contract.precision == "fp32"
    assert manifest.parity["status"] == "passed"
    refused = [text for text in said if text.startswith("refused")]
    assert [text.split(":")[0] for text in refused] == ["refused, fp16", f"refused, {WIDE_ATTENTION}"]


@pytest.mark.parametrize("bad", [3.0, float("nan")])
def test_no_engine_is_kept_unless_asked(bad: float, tmp_path: Path) -> None:
    run = standing_in(tmp_path, lambda manifest: bad)
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

    verdict = check(run, reference_path(dynamic), backend.contract, most=3)
    assert seen == [(n, size) for size in SizeClass for n in (3, 1)]
    assert verdict.passed and verdict.crops == 12


def test_references_that_cannot_be_used(tmp_path: Path) -> None:
    backend = open_backend("bundled", device="cpu")
    (tmp_path / "m.parity.npz").write_bytes(b"PK no archive")
    for path in (tmp_path / "m.parity.npz", tmp_path / "missing.parity.npz"):
        with pytest.raises(InputError, match="not a parity file"):
            check(backend.run, path, backend.contract, most=4)
    with pytest.raises(InputError, match="the engine gives"):
        check(lambda image, size: np.zeros((1, 1, 2, 2), np.float32), reference_path(BUNDLED), backend.contract, 4)
