"""Dilation and erosion: what a plain search finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.morphology import dilate, erode

grids = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(grids, st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_as_a_plain_search_finds_them(values: np.ndarray, reach: int) -> None:
    rows, columns = values.shape
    near = [
        [values[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] for x in range(columns)]
        for y in range(rows)
    ]
    assert dilate(values, reach).tolist() == [[int(part.max()) for part in row] for row in near]
    assert erode(values, reach).tolist() == [[int(part.min()) for part in row] for row in near]
