"""Ranges of activations: every FP16 value's count, streamed, and the observers that read a range from it."""

from __future__ import annotations

import numpy as np

from mal_trt.base.errors import RunError

OBSERVERS = ("max", "percentile", "entropy", "mse")
PERCENTILE = 99.99
INFINITE = 0x7C00  # bits of FP16's infinity; above lie the NaNs
CANDIDATES = 80
BINS = 2048
LEVELS = 128


class Spectrum:
    """How often each absolute FP16 value occurred: exact in half precision, constant in size.

    counts: int64 [0x7C01], indexed by the bits of |x|, the last one infinity. Adding is exact in any order, so a
    spectrum does not depend on how crops were batched.
    """

    def __init__(self, counts: np.ndarray | None = None) -> None:
        self.counts = np.zeros(INFINITE + 1, np.int64) if counts is None else counts

    def add(self, values: np.ndarray, name: str) -> None:
        """Count the values (any shape, float); RunError that names the layer on NaN."""
        with np.errstate(over="ignore"):
            bits = values.astype(np.float16).view(np.uint16).ravel() & 0x7FFF
        counts = np.bincount(bits, minlength=INFINITE + 1)
        if len(counts) > INFINITE + 1:
            raise RunError(f"{name}: NaN among its inputs on a calibration crop; the model itself is broken there")
        self.counts += counts

    @property
    def overflows(self) -> int:
        """Values beyond FP16's range."""
        return int(self.counts[INFINITE])

    @property
    def largest(self) -> float:
        """The largest absolute value, FP16's largest at most."""
        (seen,) = np.nonzero(self.counts[:INFINITE])
        return float(_values()[seen[-1]]) if len(seen) else 0.0

    def range(self, observer: str, levels: float = 127.0) -> float:
        """Largest absolute value that quantisation keeps; what lies above is clipped.

        max: all. percentile: 99.99 % of the values. entropy: least Kullback-Leibler divergence between the
        distribution and its quantised form (Migacz, 8-bit Inference with TensorRT, GTC 2017). mse: least mean
        squared error of the quantised values. levels: largest integer of the type.
        """
        if self.largest == 0.0:
            return 0.0
        if observer == "max":
            return self.largest
        if observer == "percentile":
            share = np.cumsum(self.counts[:INFINITE]) / self.counts[:INFINITE].sum()
            return float(_values()[int(np.searchsorted(share, PERCENTILE / 100))])
        return self._mse(levels) if observer == "mse" else self._entropy()

    def _mse(self, levels: float) -> float:
        (seen,) = np.nonzero(self.counts[:INFINITE])
        values, counts = _values()[seen], self.counts[seen].astype(np.float64)
        candidates = self.largest * np.linspace(1.0, 0.05, CANDIDATES)
        errors = []
        for candidate in candidates:
            scale = candidate / levels
            quantized = np.minimum(np.rint(values / scale), levels) * scale
            errors.append(float((counts * (values - quantized) ** 2).sum()))
        return float(candidates[int(np.argmin(errors))])

    def _entropy(self) -> float:
        edges = np.linspace(0, self.largest, BINS + 1)
        places = np.minimum(np.searchsorted(edges, _values(), side="right") - 1, BINS - 1)
        histogram = np.bincount(places, weights=self.counts[:INFINITE], minlength=BINS)
        histogram[0] = 0  # exact zeros are kept by any scale
        best, divergence = BINS, np.inf
        for end in range(LEVELS, BINS + 1, 8):
            found = _divergence(histogram, end)
            if found < divergence:
                best, divergence = end, found
        return float(edges[best])


def _divergence(histogram: np.ndarray, end: int) -> float:
    """KL divergence of the histogram clipped at a bin from the same in 128 levels."""
    clipped = histogram[:end].copy()
    clipped[-1] += histogram[end:].sum()
    starts = np.linspace(0, end, LEVELS + 1).astype(int)[:-1]
    used = histogram[:end] > 0
    sums = np.add.reduceat(histogram[:end], starts)
    filled = np.add.reduceat(used.astype(np.int64), starts)
    lengths = np.diff([*starts, end])
    levels = np.repeat(sums / np.maximum(filled, 1), lengths) * used
    total, total_levels = clipped.sum(), levels.sum()
    if not total or not total_levels:
        return np.inf
    p, q = clipped / total, levels / total_levels
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q == 0)].sum()  # mass that the levels cannot show at all
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1e6))


def _values() -> np.ndarray:
    """Finite non-negative FP16 values in order of their bits, float64."""
    return np.arange(INFINITE, dtype=np.uint16).view(np.float16).astype(np.float64)
