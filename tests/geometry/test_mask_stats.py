"""Signs of how good masks are, of many at once: by their definitions, computed plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.mask_stats import mask_stats
from mal_trt.geometry.rle import encode_rle, run_lengths
from mal_trt.geometry.rle_batch import run_ends

MASK = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(st.lists(MASK, min_size=1, max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_parts_and_edges(masks: list[np.ndarray], compressed: bool) -> None:
    cv2 = pytest.importorskip("cv2")
    rles = [encode_rle(LocalMask(0, 0, mask), *mask.shape) for mask in masks]
    if not compressed:
        rles[-1]["counts"] = run_lengths(rles[-1]).tolist()
    boxes = [(0, 0, mask.shape[1], mask.shape[0]) for mask in masks]
    found = mask_stats(rles, [int(mask.sum()) for mask in masks], boxes)
    for told, mask in zip(found, masks, strict=True):
        assert told["parts"] == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        assert told["box_share"] == round(mask.mean(), 4)
        sides = (mask[:, :2], mask[:2], mask[:, -2:], mask[-2:])
        assert told["edges"] == sum(bool(side.any()) for side in sides)


def test_a_maze_of_many_parts() -> None:
    """Runs that meet several on both sides, rings in rings, and masks of other sizes before and behind."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    masks = [rng.random((90 + 7 * at, 130 - 5 * at)) < share for at, share in enumerate((0.2, 0.35, 0.5, 0.6, 0.8))]
    rings = np.maximum(*np.abs(np.mgrid[:101, :101] - 50)) % 4 < 2
    masks[2:2] = [rings, np.zeros((40, 3), bool), np.ones((3, 200), bool)]
    rles = [encode_rle(LocalMask(0, 0, mask), *mask.shape) for mask in masks]
    found = mask_stats(rles, [int(mask.sum()) for mask in masks], [(0, 0, *mask.shape[::-1]) for mask in masks])
    for told, mask in zip(found, masks, strict=True):
        assert told["parts"] == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert {told["parts"] for told in found[2:5]} == {13, 0, 1} and max(told["parts"] for told in found) > 200


def test_a_box_in_the_picture() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    rle = encode_rle(LocalMask(0, 0, mask), 40, 60)
    nothing = encode_rle(LocalMask(0, 0, np.zeros((0, 0), bool)), 40, 60)
    boxes = [(30, 10, 45, 20), (29.5, 8, 50, 20.5), (30, 10, 45, 20)]
    assert mask_stats([rle, rle, nothing], [150, 150, 0], boxes) == [
        {"box_share": 1.0, "edges": 4, "parts": 1},
        {"box_share": round(150 / (20.5 * 12.5), 4), "edges": 2, "parts": 1},
        {"box_share": 0.0, "edges": 0, "parts": 0},
    ]
    assert mask_stats([], [], []) == []


@pytest.mark.parametrize("counts", ["", "0\x80", "_", "0000000000p", "\x1f"])
def test_counts_that_coco_does_not_write(counts: str) -> None:
    good = encode_rle(LocalMask(0, 0, np.ones((2, 2), bool)), 5, 5)
    for rles in ([{"size": [5, 5], "counts": counts}], [good, {"size": [5, 5], "counts": counts}, good]):
        with pytest.raises(ValueError, match=r"COCO|ascii"):
            run_ends(rles)
