"""Spectra hold every FP16 value exactly; observers find the ranges that a plain search finds."""

from __future__ import annotations

import numpy as np
import pytest

from mal_trt.base.errors import RunError
from mal_trt.calibration.observe import Spectrum


def spectrum(values: np.ndarray) -> Spectrum:
    found = Spectrum()
    found.add(values, "layer")
    return found


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.concatenate([rng.normal(0, 1, 200_000), [30.0, -60.0]]).astype(np.float32)


def test_any_order_and_batching_gives_the_same(values: np.ndarray) -> None:
    parts = Spectrum()
    for part in np.array_split(np.random.default_rng(0).permutation(values), 7):
        parts.add(part.reshape(1, -1), "layer")
    whole = spectrum(values)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert whole.counts.sum() == len(values) and whole.largest == 60.0
    half = np.abs(values.astype(np.float16))
    assert whole.counts[half[0].view(np.uint16)] == (half == half[0]).sum()


def test_max_and_percentile(values: np.ndarray) -> None:
    found = spectrum(values)
    assert found.range("max") == 60.0
    exact = np.sort(np.abs(values.astype(np.float16)))[int(np.ceil(0.9999 * len(values))) - 1]
    assert found.range("percentile") == pytest.approx(float(exact), rel=2e-3)


def test_mse_is_the_best_range(values: np.ndarray) -> None:
    def error(limit: float) -> float:
        scale = limit / 127
        quantized = np.clip(np.rint(values / scale), -127, 127) * scale
        return float(((values - quantized) ** 2).mean())

    found = spectrum(values).range("mse")
    best = min(error(limit) for limit in np.linspace(1, 60, 400))
    assert error(found) <= best * 1.1 and found < 60


def test_entropy_clips_outliers_and_keeps_a_full_range(values: np.ndarray) -> None:
    assert 3 < spectrum(values).range("entropy") < 20
    even = np.random.default_rng(1).uniform(-2, 2, 100_000).astype(np.float32)
    assert spectrum(even).range("entropy") > 1.8


def test_nothing_but_zeros() -> None:
    for observer in ("max", "percentile", "entropy", "mse"):
        assert spectrum(np.zeros(10, np.float32)).range(observer) == 0.0


def test_overflow_is_counted_and_nan_named() -> None:
    found = spectrum(np.array([1.0, 1e5, -np.inf], np.float32))
    assert found.overflows == 2 and found.largest == 1.0
    with pytest.raises(RunError, match="fc1: NaN"):
        found.add(np.array([np.nan], np.float32), "fc1")
