"""JPEG made smaller by its decoder, and simplejpeg beside Pillow: the same pixels, the same complaints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt.formats import pixels
from mal_trt.formats.images import ImageProblem, open_images, read_picture

SIDES = (203, 101)


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    y, x = np.mgrid[: SIDES[1], : SIDES[0]]
    grain = np.random.default_rng(0).integers(0, 40, (SIDES[1], SIDES[0], 3))
    picture = (np.stack([x, 2 * y, 200 - x], -1) + grain).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data: bytes, by: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patched:
        patched.setattr(pixels, "read_jpeg", lambda *_: None)
        return read_picture(io.BytesIO(data), by=by)


@pytest.mark.parametrize("by", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "L"}, {"mode": "CMYK"}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True, "quality": 40}],
)
def test_sides_are_divided_and_rounded_up(by: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(**options)
    found = read_picture(io.BytesIO(data), SIDES, by)
    assert found.shape == (-(-SIDES[1] // by), -(-SIDES[0] // by), 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_pillow(data, by, monkeypatch))
    whole = read_picture(io.BytesIO(data))[: SIDES[1] // by * by, : SIDES[0] // by * by].astype(float)
    means = whole.reshape(SIDES[1] // by, by, SIDES[0] // by, by, 3).mean((1, 3))
    assert np.abs(found[: means.shape[0], : means.shape[1]] - means).mean() < 4


def test_only_what_is_stored_so_is_reduced(tmp_path: Path) -> None:
    picture = Image.new("RGB", SIDES, (10, 200, 30))
    picture.save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "b.jpg", exif=turned)
    source = open_images(tmp_path)
    assert source.load("a.png", SIDES, 4).shape == (101, 203, 3)
    assert source.load("b.jpg", SIDES, 4).shape == (26, 51, 3)
    assert source.load("b.jpg", SIDES[::-1], 4).shape == (203, 101, 3)  # rotated: whole


def test_what_is_damaged_pillow_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg()
    for broken in (data[: len(data) // 2], data[:-2], data[:400] + b"\xff\xd9" + data[400:]):
        said = []
        for one in (True, False):
            try:
                said.append(read_picture(io.BytesIO(broken)) if one else by_pillow(broken, 1, monkeypatch))
            except ImageProblem as problem:
                said.append(np.array([str(problem)]))
        np.testing.assert_array_equal(*said)


def test_simplejpeg_is_used_where_it_is_installed() -> None:
    pytest.importorskip("simplejpeg")
    from mal_trt.formats.jpeg import read_jpeg

    data = jpeg()
    with Image.open(io.BytesIO(data)) as image:
        found = read_jpeg(io.BytesIO(data), image)
        assert found is not None
        np.testing.assert_array_equal(found, np.asarray(image))
