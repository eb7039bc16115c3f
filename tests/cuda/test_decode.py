"""Which pictures nvImageCodec gets, over a test double of it that decodes with Pillow."""

from __future__ import annotations

import io
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from host_cuda import HostDriver
from mal_trt.base.errors import InputError, RunError
from mal_trt.cuda.decode import JpegDecoder
from mal_trt.formats.images import ImageProblem, open_images

SIZE = (48, 32)


class Codec(ModuleType):
    """A test double of nvidia.nvimgcodec: Pillow decodes, and what is asked of it is kept."""

    ColorSpec = Enum("ColorSpec", ["SRGB"])
    broken = ""

    def __init__(self) -> None:
        super().__init__("nvimgcodec")
        self.decoded = 0

    def CodeStream(self, data: bytes) -> Any:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            channels = len(image.getbands())
        return SimpleNamespace(width=width, height=height, num_channels=channels, data=data)

    def DecodeParams(self, **options: Any) -> Any:
        assert options == {
            "apply_exif_orientation": False,
            "color_spec": self.ColorSpec.SRGB,
            "allow_any_depth": False,
        }
        return options

    def Decoder(self, device_id: int, options: str) -> Any:
        if self.broken:
            raise RuntimeError(self.broken)

        def decode(code: Any, params: Any, cuda_stream: int) -> Any:
            self.decoded += 1
            return np.asarray(Image.open(io.BytesIO(code.data)).convert("RGB")) if params and cuda_stream else None

        return SimpleNamespace(decode=decode)


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> Codec:
    codec = Codec()
    parent = ModuleType("nvidia")
    parent.nvimgcodec = codec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvidia", parent)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", codec)
    return codec


def write(path: Path, mode: str = "RGB", **options: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.mark.parametrize(
    ("name", "mode", "options", "on_gpu"),
    [
        ("rgb.jpg", "RGB", {}, True),
        ("grey.jpg", "L", {}, True),
        ("cmyk.jpg", "CMYK", {}, False),
        ("picture.png", "RGB", {}, False),
        ("alpha.png", "RGBA", {}, False),
    ],
)
def test_plain_jpeg_goes_to_the_gpu_and_all_else_to_pillow(
    tmp_path: Path, codec: Codec, name: str, mode: str, options: dict[str, Any], on_gpu: bool
) -> None:
    write(tmp_path / name, mode, **options)
    driver, source = HostDriver(), open_images(tmp_path)
    with driver.current():
        decoder = JpegDecoder(driver)
        pixels = decoder.load(source, name, SIZE)
        assert np.array_equal(pixels, source.load(name, SIZE)) and codec.decoded == on_gpu
        assert driver.calls["synchronize"] == on_gpu
        decoder.close()
    assert not any(driver.living.values())


def test_what_is_wrong_with_a_picture_is_said_as_ever(tmp_path: Path, codec: Codec) -> None:
    write(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    driver, source = HostDriver(), open_images(tmp_path)
    with driver.current():
        decoder = JpegDecoder(driver)
        for name, expected in (("cut.jpg", SIZE), ("a.jpg", (10, 10)), ("none.jpg", SIZE)):
            with pytest.raises(ImageProblem) as given:
                decoder.load(source, name, expected)
            with pytest.raises(ImageProblem) as wanted:
                source.load(name, expected)
            assert str(given.value) == str(wanted.value)
    assert codec.decoded == 0


def test_a_picture_turned_by_its_tag_is_turned_by_pillow(tmp_path: Path, codec: Codec) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "turned.jpg", exif=exif)
    driver, source = HostDriver(), open_images(tmp_path)
    with driver.current():
        pixels = JpegDecoder(driver).load(source, "turned.jpg", SIZE[::-1])
    assert pixels.shape == (SIZE[0], SIZE[1], 3) and codec.decoded == 0


def test_without_it_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, codec: Codec) -> None:
    driver = HostDriver()
    codec.broken = "no\ndevice"
    with driver.current(), pytest.raises(RunError, match=r"no device.*--decode cpu"):
        JpegDecoder(driver)
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with driver.current(), pytest.raises(InputError, match=r"pip install.*nvimgcodec"):
        JpegDecoder(driver)
    assert not any(driver.living.values())
