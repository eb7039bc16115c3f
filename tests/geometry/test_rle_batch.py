"""Run lengths of many masks at once are those of one at a time, and pycocotools', to the byte."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import column_edges, encode_rle, rle_from_edges
from mal_trt.geometry.rle_batch import rle_json, rles_from_edges


def masks_of(rng: np.random.Generator) -> list[np.ndarray]:
    """Blocks, noise, whole columns, all and nothing, from one pixel up."""
    found = []
    for _ in range(40):
        height, width = (int(v) for v in rng.integers(1, 60, 2))
        mask = np.zeros((height, width), bool)
        kind = rng.integers(6)
        if kind == 0:
            mask = rng.random((height, width)) < rng.random()
        elif kind == 1:
            mask[:] = True
        elif kind == 2:
            mask[:, : width // 2] = True  # off and on at one index, over and over
        elif kind == 3:
            mask[height // 2 :, width // 3 :] = True  # ends with its picture
        elif kind == 4:
            mask[: height // 2 + 1, : width // 3 + 1] = True  # begins with it
        found.append(mask)
    return found


def edges_of(mask: np.ndarray) -> np.ndarray:
    return column_edges(mask.T, 0, 0, mask.shape[0])


@pytest.mark.parametrize("seed", range(20))
def test_many_masks_at_once(seed: int) -> None:
    masks = masks_of(np.random.default_rng(seed))
    edges = [edges_of(mask) for mask in masks]
    sides = np.array([mask.shape[::-1] for mask in masks])
    rles, areas = rles_from_edges(np.concatenate(edges), np.array([len(one) for one in edges]), sides)
    assert rles == [encode_rle(LocalMask(0, 0, mask), *mask.shape) for mask in masks]
    for mask, rle, area in zip(masks, rles, areas, strict=True):
        canvas = np.asfortranarray(mask.astype(np.uint8))
        assert rle["counts"].encode() == coco.encode(canvas)["counts"]
        assert area == mask.sum() and type(area) is int


def test_masks_of_huge_pictures() -> None:
    """Runs of up to 32 bits, beginnings, gaps and ends alike, beside masks of the usual size and none at all."""
    rng = np.random.default_rng(0)
    sides = np.array([(65_000, 66_000), (1920, 1080), (640, 480), (65_000, 66_000), (1, 1), (5000, 4000)])
    edges = []
    for width, height in sides.tolist():
        pixels = width * height
        near = np.exp(rng.uniform(0, np.log(pixels), 60)).astype(np.int64)
        at = np.unique(np.concatenate([near, pixels - near]))
        edges.append(at[: len(at) // 2 * 2])
    edges[3] = edges[3][:0]
    rles, areas = rles_from_edges(np.concatenate(edges), np.array([len(one) for one in edges]), sides)
    expected = [rle_from_edges(own, height, width) for own, (width, height) in zip(edges, sides.tolist(), strict=True)]
    assert rles == expected
    for area, own in zip(areas, edges, strict=True):
        assert area == (own[1::2] - own[::2]).sum()


def test_every_difference() -> None:
    """Differences around each power of two: where a character more is needed, with either sign."""
    steps = [2**bits + by for bits in range(24) for by in (-1, 0, 1) if 2**bits + by > 0]
    for more in steps:
        at = np.cumsum([1, more, 1, 1, more, 1, 1, more])
        (rle,), _ = rles_from_edges(at, np.array([8]), np.array([[1 << 14, 1 << 14]]))
        assert rle == rle_from_edges(at, 1 << 14, 1 << 14)


def test_none_and_nothing() -> None:
    assert rles_from_edges(np.zeros(0, np.int64), np.zeros(0, int), np.zeros((0, 2), int)) == ([], [])
    rles, areas = rles_from_edges(np.zeros(0, np.int64), np.zeros(2, int), np.array([[3, 2], [900, 700]]))
    assert rles == [rle_from_edges(np.zeros(0, np.int64), h, w) for h, w in ((2, 3), (700, 900))] and areas == [0, 0]


def test_as_json() -> None:
    rng = np.random.default_rng(3)
    rles = [encode_rle(LocalMask(0, 0, rng.random((370, 610)) < 0.01), 370, 610) for _ in range(20)]
    assert any("\\" in rle["counts"] for rle in rles)
    assert [rle_json(rle) for rle in rles] == [json.dumps(rle, separators=(",", ":")) for rle in rles]
