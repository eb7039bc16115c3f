"""Crops of pictures that their decoder made smaller."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mal_trt.geometry import crops
from mal_trt.geometry.crops import read_crop, reduced_by, reduction


def waves(width: int, height: int) -> np.ndarray:
    """Smooth enough that a pixel tells where it lies, uint8 [H,W,3]."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 120 * np.sin(x / 90 + k) * np.cos(y / 70 - k) for k in range(3)], -1).astype(np.uint8)


def halved(picture: np.ndarray, by: int) -> np.ndarray:
    """Means of by x by pixels, as a JPEG's decoder leaves them, the last ones of fewer."""
    height, width = (-(-side // by) * by for side in picture.shape[:2])
    padded = np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)), "edge")
    cells = padded.reshape(height // by, by, width // by, by, 3).astype(np.float64).mean((1, 3))
    return np.rint(cells).astype(np.uint8)


@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("extended", [(101, 53, 677, 501), (3, 1, 638, 411), (100, 50, 740, 530)])
def test_a_crop_of_a_reduced_picture_is_that_of_the_whole_one(by: int, extended: tuple[int, ...]) -> None:
    whole = waves(803, 605)
    expected = read_crop(whole, extended, 64).astype(int)
    found = read_crop(halved(whole, by), extended, 64, by).astype(int)
    # Half a reduced pixel off would be 8 grey levels and more.
    assert np.abs(found - expected).max() <= 3
    shifted = read_crop(halved(whole, by), [v + by for v in extended], 64, by).astype(int)
    assert np.abs(shifted - expected).max() > 3


def test_bands_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (300, 401, 3)).astype(np.uint8)
    for by in (1, 4):
        extended = [-30 * by, -20 * by, 380 * by + 1, 310 * by + 3]
        once = read_crop(picture, extended, 48, by)
        monkeypatch.setattr(crops, "BAND_PIXELS", 2000)
        np.testing.assert_array_equal(read_crop(picture, extended, 48, by), once)
        monkeypatch.undo()


def test_outside_a_reduced_picture_it_wraps() -> None:
    picture = halved(waves(800, 600), 4)
    crop = read_crop(picture, (-80, 100, 80, 260), 40, 4)
    np.testing.assert_array_equal(crop[:, :20], np.asarray(Image.fromarray(picture[25:65, 180:200])))


def test_how_far_a_picture_is_reduced() -> None:
    # The crop is 1.3 times the box: 1.3 * 1182 is 8 * 192 and a bit.
    assert [reduction(side, 192, 0.6) for side in (0, 295, 296, 590, 591, 1181, 1182, 9000)] == [
        *(1, 1, 2, 2, 4, 4, 8, 8),
    ]
    for by in (1, 2, 4, 8):
        assert reduced_by(halved(waves(333, 222), by), 333, 222) == by
    assert reduced_by(np.zeros((1, 1, 3), np.uint8), 1, 1) == 1
