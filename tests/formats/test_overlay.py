"""Overlays: colour where the mask is, the photo untouched elsewhere, and sheets of any mix of shapes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mal_trt.formats.overlay import PALETTE, contact_sheet, display_size, draw_overlay
from mal_trt.geometry.local_mask import LocalMask


@pytest.fixture
def picture() -> np.ndarray:
    return np.full((120, 160, 3), 100, np.uint8)


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def test_mask_is_tinted_outlined_and_the_rest_untouched(picture: np.ndarray) -> None:
    result = np.asarray(draw_overlay(picture, [LocalMask(60, 40, disc(20))]))
    assert result.shape == picture.shape
    colour = np.array(PALETTE[0], float)
    inside, edge = result[60, 80].astype(float), result[60, 60].astype(float)
    assert 0 < np.abs(inside - 100).max() < np.abs(colour - 100).max() * 0.6  # translucent
    assert np.linalg.norm(edge - colour) < np.linalg.norm(inside - colour) * 0.5  # the outline is nearly solid
    assert (result[:34] == 100).all() and (result[:, :54] == 100).all() and (result[:, 107:] == 100).all()
    assert (picture == 100).all()  # the input is not drawn on


def test_objects_differ_in_colour_and_small_ones_stay_on_top(picture: np.ndarray) -> None:
    small, large = LocalMask(70, 50, disc(8)), LocalMask(40, 20, disc(38))
    both = np.asarray(draw_overlay(picture, [small, large]))
    other = np.asarray(draw_overlay(picture, [large]))
    assert not np.array_equal(both[58, 78], other[58, 78])
    edge = both[58, 70].astype(float)
    assert np.linalg.norm(edge - PALETTE[0]) < np.linalg.norm(edge - PALETTE[1])


def test_boxes_and_names(picture: np.ndarray) -> None:
    masks = [LocalMask(60, 40, disc(20)), LocalMask(0, 0, np.zeros((0, 0), bool))]
    boxes = [(60.2, 39.7, 101.0, 81.0), (500.0, 500.0, 510.0, 510.0)]  # the second lies outside
    plain = np.asarray(draw_overlay(picture, masks, boxes))
    assert (plain[40, 60:101] == PALETTE[0]).all() and (plain[40:81, 100] == PALETTE[0]).all()
    named = np.asarray(draw_overlay(picture, masks, boxes, ["cat", "dog"]))
    assert (named[26:40, 60:75] != plain[26:40, 60:75]).any()
    hopeless = np.asarray(draw_overlay(picture, masks, boxes, ["a name far too long for so small a box", ""]))
    assert np.array_equal(hopeless, plain)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_masks_up_to_the_borders(shape: tuple[int, int]) -> None:
    result = draw_overlay(np.zeros((*shape, 3), np.uint8), [LocalMask(0, 0, np.ones(shape, bool))])
    assert result.size == shape[::-1]
    assert np.asarray(result).any()


def test_a_smaller_copy_shows_the_same(picture: np.ndarray) -> None:
    """Masks and boxes of the whole picture on a copy of a third its size: as the whole one drawn and brought down."""
    big = Image.fromarray(picture).resize((960, 720))
    mask, box = LocalMask(361, 244, disc(119)), (360.4, 243.1, 600.0, 483.0)
    small = np.asarray(draw_overlay(big.resize((320, 240)), [mask], [box], full=(960, 720)), float)
    whole = np.asarray(draw_overlay(big, [mask], [box]).resize((320, 240), Image.Resampling.BOX), float)
    assert small.shape == (240, 320, 3)
    inside = np.s_[100:140, 140:180]
    assert np.abs(small[inside] - whole[inside]).max() <= 2
    edge = small[:, 160, :]
    assert abs(int(np.argmax(np.linalg.norm(edge - 100, axis=1) > 20)) - 81) <= 2, "begins where the mask does"
    assert (small[:78] == 100).all() and (small[164:] == 100).all() and (small[:, :117] == 100).all()


@pytest.mark.parametrize(("width", "height", "side", "size"), [
    (6000, 4000, 1600, (1600, 1067)), (400, 1600, 1600, (400, 1600)), (6000, 4000, 0, (6000, 4000)),
    (3, 65000, 1600, (1, 1600)),
])  # fmt: skip
def test_display_size(width: int, height: int, side: int, size: tuple[int, int]) -> None:
    assert display_size(width, height, side) == size


def test_the_tiniest_mask_on_the_smallest_copy() -> None:
    copy = Image.new("RGB", (1, 20))
    result = draw_overlay(copy, [LocalMask(2, 649, np.ones((1, 1), bool))], [(2, 649, 3, 650)], full=(3, 650))
    assert result.size == (1, 20) and np.asarray(result)[-1].any()


def test_other_modes_come_out_rgb() -> None:
    grey = Image.new("L", (30, 20), 7)
    assert draw_overlay(grey, []).mode == "RGB"
    assert np.asarray(draw_overlay(grey, [])).max() == 7


def test_sheet_rows_fill_the_width() -> None:
    red, green, blue = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    shapes = [
        ((200, 100), red),
        ((100, 200), green),
        ((150, 150), blue),
        ((640, 480), red),
        ((50, 80), green),
    ]
    sheet = np.asarray(contact_sheet([Image.new("RGB", size, c) for size, c in shapes], columns=3, tile=100, gap=4))
    assert sheet.shape[1] == 300
    first = sheet[20]
    assert (first[4] == red).all() and (first[295] == blue).all() and (first[3] != red).any()
    assert [(first == c).all(axis=1).any() for c in (red, green, blue)] == [True, True, True]
    assert (sheet[-20] == green).all(axis=1).any()


def test_sheet_of_one_and_of_extremes() -> None:
    assert contact_sheet([Image.new("RGB", (300, 200))], columns=4, tile=100).width == 100
    sheet = contact_sheet([Image.new("RGB", (2000, 2), "white"), Image.new("L", (2, 2000), 255)], columns=2, tile=200)
    assert sheet.width == 400 and sheet.height < 400
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
