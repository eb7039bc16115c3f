"""Pictures of every mode and every kind of damage, and how they are found by name."""

from __future__ import annotations

import io
import tarfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt.base.errors import InputError
from mal_trt.formats import picture_problem, pixels
from mal_trt.formats.images import ImageProblem, open_images, read_picture, to_rgb

GREY = np.arange(6 * 5, dtype=np.uint8).reshape(5, 6) * 8
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def encoded(image: Image.Image, format: str, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    stream.seek(0)
    return stream


def reason(stream: io.BytesIO, expected: tuple[int, int] | None = None) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        read_picture(stream, expected)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        *(("RGB", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF")),
        *(("1", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("PA", "")),
    ],
)
def test_every_mode_reads_as_pillow_shows_it(mode: str, format: str) -> None:
    source = Image.fromarray(RGB)
    image = source.convert("P").convert("PA") if mode == "PA" else source.convert(mode)
    if (mode, format) == ("YCbCr", "TIFF"):
        try:
            Image.open(encoded(image, format)).load()
        except OSError as error:  # Pillow before 13
            pytest.skip(f"this Pillow cannot read such a file that it wrote itself ({error})")
    pixels = read_picture(encoded(image, format)) if format else to_rgb(image)
    assert pixels.dtype == np.uint8 and pixels.shape == (5, 6, 3)
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg() -> None:
    stream = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(read_picture(stream).astype(int) - (255, 0, 0)).max() < 8


def test_palette_with_transparency_gives_no_warning() -> None:
    image = Image.fromarray(RGB).convert("P")
    stream = encoded(image, "PNG", transparency=bytes(range(0, 256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_picture(stream), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_bands_change_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 99) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    whole = to_rgb(image.copy())
    monkeypatch.setattr(pixels, "BAND_PIXELS", 12)  # two rows
    np.testing.assert_array_equal(to_rgb(image), whole)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_only_a_picture_the_document_knows_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    def stream() -> io.BytesIO:
        return encoded(Image.fromarray(RGB), "PNG", exif=exif)

    np.testing.assert_array_equal(read_picture(stream()), RGB)
    np.testing.assert_array_equal(read_picture(stream(), (6, 5)), RGB)
    if orientation < 5:
        assert reason(stream(), (5, 6)).reason == picture_problem.OTHER_SIZE
    else:
        turned = read_picture(stream(), (5, 6))
        assert turned.shape == (6, 5, 3)
        expected = {5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1), 8: np.rot90(RGB, 1)}
        if orientation in expected:
            np.testing.assert_array_equal(turned, expected[orientation])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_unless_the_document_knows_it_as_stored(orientation: int) -> None:
    def stream() -> io.BytesIO:
        return encoded(Image.fromarray(RGB), "TIFF", tiffinfo={0x0112: orientation})

    turns = {1: RGB, 3: np.rot90(RGB, 2), 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1), 8: np.rot90(RGB)}
    pixels = read_picture(stream())
    if orientation in turns:
        np.testing.assert_array_equal(pixels, turns[orientation])
    np.testing.assert_array_equal(read_picture(stream(), pixels.shape[1::-1]), pixels)
    if orientation > 4 and Image.open(stream()).size == (5, 6):  # else Pillow forgets as it turns that it has
        np.testing.assert_array_equal(read_picture(stream(), (6, 5)), RGB)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_page_or_frame_is_read(format: str) -> None:
    first, second = (Image.new("RGB", (6, 5), (value,) * 3) for value in (40, 200))
    options = {"lossless": True} if format == "WEBP" else {}
    stream = encoded(first, format, save_all=True, append_images=[second], **options)
    assert (read_picture(stream) == 40).all()


def test_other_size() -> None:
    problem = reason(encoded(Image.fromarray(RGB), "PNG"), (7, 5))
    assert (problem.reason, problem.detail) == (picture_problem.OTHER_SIZE, "6x5, the document says 7x5")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_truncated(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), format).getvalue()
    assert reason(io.BytesIO(whole[: len(whole) // 2])).reason in (
        picture_problem.DAMAGED,
        picture_problem.NOT_A_PICTURE,
    )


def test_flipped_bytes_never_raise_anything_else() -> None:
    """Damage anywhere in a file either still decodes or is an ImageProblem."""
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (32, 32, 3), np.uint8)
    for format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        whole = encoded(Image.fromarray(noise), format).getvalue()
        for _ in range(60):
            data = bytearray(whole)
            for at in random.integers(0, min(len(data), 200), 3):
                data[at] = random.integers(0, 256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_picture(io.BytesIO(bytes(data)), (32, 32))
                except ImageProblem as problem:
                    assert "\n" not in str(problem)


def test_empty_and_foreign_files() -> None:
    assert reason(io.BytesIO()).reason == picture_problem.EMPTY
    assert reason(io.BytesIO(b"%PDF-1.4 hello")).reason == picture_problem.NOT_A_PICTURE


def test_bomb_is_refused_by_its_header_and_large_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit must not matter, nor change
    stream = encoded(Image.fromarray(RGB), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_picture(stream), RGB)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(pixels, "MAX_PIXELS", 29)
    stream.seek(0)
    assert reason(stream).reason == picture_problem.TOO_LARGE


def put(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 1), value).save(path)


@pytest.fixture(params=["folder", "tar"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Pictures in folders, each of a colour of its own; as a folder and as a tar of it."""
    root = tmp_path / "root"
    for value, name in enumerate(
        ("one.png", "images/two.png", "a/same.png", "b/same.png", "c/train/deep.png", "images/000000000042.png")
    ):
        put(root / name, value)
    if request.param == "folder":
        return root
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(root, ".")
    return tmp_path / "root.tar"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("one.png", 0),
        ("./one.png", 0),
        ("images/two.png", 1),
        ("two.png", 1),
        ("a/same.png", 2),
        ("b\\same.png", 3),
        ("train/deep.png", 4),
        ("val/deep.png", 4),
        ("../../root/deep.png", 4),
    ],
)
def test_found_by_name(tree: Path, name: str, value: int) -> None:
    source = open_images(tree)
    assert source.load(name)[0, 0, 0] == value
    assert source.size(name) == (2, 1)


@pytest.mark.parametrize("name", ["none.png", "", "/", "..", "same.png", "../root.tar", "a"])
def test_not_found_by_name(tree: Path, name: str) -> None:
    with pytest.raises(ImageProblem) as caught:
        open_images(tree).load(name)
    assert caught.value.reason == (picture_problem.AMBIGUOUS if name == "same.png" else picture_problem.MISSING)


def test_found_by_id(tree: Path) -> None:
    source = open_images(tree)
    assert source.find_id(42) == source.find_id("42") == "images/000000000042.png"
    assert source.find_id("one") == "one.png"
    for unknown in (43, "", "000", "x" * 5000, 10**30):
        with pytest.raises(ImageProblem, match="missing"):
            source.find_id(unknown)
    with pytest.raises(ImageProblem, match="several"):
        source.find_id("same")


def test_a_shorter_padding_is_the_same_number(tmp_path: Path) -> None:
    put(tmp_path / "0007.png", 7)
    assert open_images(tmp_path).find_id(7) == "0007.png"


def test_a_single_file_is_found_by_its_name_only(tmp_path: Path) -> None:
    put(tmp_path / "one.png", 1)
    put(tmp_path / "two.png", 2)
    source = open_images(tmp_path / "one.png")
    assert source.load("set/one.png")[0, 0, 0] == 1
    assert source.find_id("one") == "one.png"
    with pytest.raises(ImageProblem, match="missing"):
        source.load("two.png")


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "secret.png", 1)
    (tmp_path / "pictures").mkdir()
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ImageProblem, match="missing"):
            open_images(tmp_path / "pictures").load(name)


def test_a_tar_is_read_by_many_threads(tmp_path: Path) -> None:
    count = 40
    for index in range(count):
        put(tmp_path / "set" / f"{index}.png", index)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "images")
    source = open_images(tmp_path / "set.tar")
    start = threading.Barrier(8)

    def read(worker: int) -> list[int]:
        start.wait()
        return [int(source.load(f"{i}.png")[0, 0, 0]) for i in range(count)]

    with ThreadPoolExecutor(8) as pool:
        assert all(values == list(range(count)) for values in pool.map(read, range(8)))


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: no such folder or file"):
        open_images(tmp_path / "none")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"bad\.tar"):
        open_images(tmp_path / "bad.tar")
    with tarfile.open(tmp_path / "small.tar.gz", "w:gz"):
        pass
    with pytest.raises(InputError, match="unpack"):
        open_images(tmp_path / "small.tar.gz")


def test_a_cut_off_tar_is_refused_before_any_work(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name in ("a", "b", "c"):
            archive.add(tmp_path / "a.png", name)
    (tmp_path / "set.tar").write_bytes((tmp_path / "set.tar").read_bytes()[:700])
    with pytest.raises(InputError, match=r"set\.tar: not a readable, uncompressed tar"):
        open_images(tmp_path / "set.tar")
