"""SmoothQuant changes how a function is written, not the function; then one range serves outlier channels too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import numpy_helper

from mal_trt.calibration.calibrate import calibrate
from mal_trt.calibration.graph import fold_constants, load_onnx
from mal_trt.calibration.half import to_half
from mal_trt.calibration.quantize import choose
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.calibration.smooth import smooth

NORM = ("norm0.weight", "norm0.bias")


def with_outliers(path: Path) -> Path:
    """The encoder with a channel that its first normalisation makes 200 times as large."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in NORM or tensor.name == "student.backbone.blocks.0.mlp.fc1.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[5] *= 200 if tensor.name in NORM else 1 / 200
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    return path


def run(model: Any, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": image})[0])


@pytest.mark.parametrize("half", [False, True])
def test_same_function(encoder: Callable[..., Path], half: bool) -> None:
    model = fold_constants(load_onnx(with_outliers(encoder()))[0])
    model = to_half(model) if half else model
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    before = run(model, image)
    chosen = choose(model, ["linear"], "")
    channels = np.ones(16)
    channels[5] = 200
    # Only the first Linear comes right after a normalisation.
    assert smooth(model, chosen, {chosen[0].input: channels}, 0.5) == 1
    gamma = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == NORM[0])
    assert gamma.max() < 100 and gamma.std() > 0
    np.testing.assert_allclose(run(model, image), before, atol=0.02 if half else 1e-4)


def test_int8_gets_better(tmp_path: Path, encoder: Callable[..., Path], pictures: Callable[..., Any]) -> None:
    model, sources = with_outliers(encoder()), [pictures()]

    def error(strength: float) -> float:
        alone = CalibrationSettings(
            crops=32, check_crops=4, observer="max", sensitivity_crops=0, max_miou_drop=1.0, exclude=("blocks.1", "fc2")
        )
        settings = replace(alone, smooth=strength)
        report = calibrate(model, tmp_path / "out.onnx", sources, settings)
        return float(report.document["agreement"]["logit_error"]["mean"])

    assert error(0.7) < 0.8 * error(0.0)


def test_nothing_to_smooth(tmp_path: Path, encoder: Callable[..., Path], pictures: Callable[..., Any]) -> None:
    """As in a convolutional network; ONNX Runtime gives all outputs where none is asked for."""
    settings = CalibrationSettings(
        crops=32, check_crops=4, sensitivity_crops=0, max_miou_drop=1.0, smooth=0.5, exclude=("blocks.0",)
    )
    report = calibrate(encoder(), tmp_path / "out.onnx", [pictures()], settings)
    assert report.document["warnings"] == [
        "--smooth has no effect: no normalisation feeds nothing but quantised Linears"
    ]
