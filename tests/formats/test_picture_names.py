"""Pictures are found though their documents call them otherwise, where only one can be meant."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mal_trt.formats.images import ImageProblem, open_images
from mal_trt.formats.picture_names import PictureNames
from mal_trt.formats.picture_problem import AMBIGUOUS, MISSING, NOT_A_FILE, UNREADABLE


def found(stored: list[str], wanted: str, pictures: frozenset[str] | None = None) -> tuple[str, bool]:
    """What is found among stored names, and whether it is called otherwise. pictures: those that are by content."""
    return PictureNames(stored, lambda name: pictures is not None and name in pictures).match(wanted)


@pytest.mark.parametrize(
    ("stored", "wanted", "renamed"),
    [
        ("coffee.jpg", "coffee.jpg", False),
        ("set/coffee.jpg", "coffee.jpg", False),
        ("coffee.jpg", "set/train/coffee.jpg", False),
        ("coffee.jpg", "C:\\set\\coffee.jpg", False),
        ("coffee.jpg", "coffee.JPG", True),
        ("Coffee.JPG", "coffee.jpg", True),
        ("coffee.jpg", "coffee", True),
        ("coffee.png", "coffee.jpg", True),
        ("coffee.jpeg", "coffee.jpg", True),
        ("coffee.v1.jpg", "coffee.v1", True),
        ("a/coffee.jpg", "b/coffee.jpg", True),
        ("my photo.jpg", "my%20photo.jpg", True),
        ("my%20photo.jpg", "my photo.jpg", True),
        ("coffee.jpg", "https://host/x/coffee.jpg?size=large", False),
        ("coffee.jpg", "s3://bucket/x/coffee.jpg", False),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg"), True),
        ("coffee.jpg", " coffee.jpg ", True),
    ],
)
def test_the_only_one_that_fits(stored: str, wanted: str, renamed: bool) -> None:
    assert found([stored, "other.jpg", "coffee.txt", "coffee.json", "my photo.txt"], wanted) == (stored, renamed)


@pytest.mark.parametrize(
    ("stored", "wanted", "names"),
    [
        (["a.jpg", "A.jpg"], "a.JPG", "A.jpg, a.jpg"),
        (["a.jpg", "a.png"], "a", "a.jpg, a.png"),
        (["x/a.jpg", "y/a.jpg"], "z/a.jpg", "x/a.jpg, y/a.jpg"),
        (["x/a.jpg", "y/a.jpg"], "a.jpg", "x/a.jpg, y/a.jpg"),
    ],
)
def test_more_than_one_are_named(stored: list[str], wanted: str, names: str) -> None:
    with pytest.raises(ImageProblem) as caught:
        found(stored, wanted)
    assert (caught.value.reason, caught.value.detail) == (AMBIGUOUS, f"{wanted}: {names}")


@pytest.mark.parametrize(
    ("stored", "wanted", "picture"),
    [
        (["a.jpg", "A.jpg"], "a.jpg", "a.jpg"),
        (["train/a.jpg", "val/a.JPG"], "val/a.jpg", "val/a.JPG"),
        (["train/a.jpg", "val/a.jpg"], "x/train/a.jpg", "train/a.jpg"),
        (["a.jpg", "b/a.jpg"], "a.jpg", "a.jpg"),
        (["images/a.jpg", "masks/a.jpg"], "a.jpg", "images/a.jpg"),
        (["Train/a.jpg", "val/a.jpg"], "train/a.jpg", "Train/a.jpg"),
    ],
)
def test_the_nearest_folder_and_spelling_come_first(stored: list[str], wanted: str, picture: str) -> None:
    assert found(stored, wanted)[0] == picture


def test_what_is_no_picture_takes_no_part() -> None:
    assert found(["a.jpg", "a.txt", "a.xml", "._a.jpg", "a.npy"], "a.png")[0] == "a.jpg"
    assert found(["a.raw", "a.sha"], "a.jpg", frozenset({"a.raw"}))[0] == "a.raw"
    with pytest.raises(ImageProblem, match=MISSING):
        found(["a.txt"], "a.txt")
    with pytest.raises(ImageProblem, match=MISSING):
        found(["a.txt"], "")


def test_content_decides_between_two_of_a_name(tmp_path: Path) -> None:
    Image.new("L", (2, 1)).save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_text("moved to the cellar")
    assert open_images(tmp_path).find("a") == "a.png"


@given(st.lists(st.text(min_size=1, max_size=12), max_size=6), st.text(max_size=12))
def test_any_names(stored: list[str], wanted: str) -> None:
    """Whatever names: a stored one, or a problem in one line."""
    stored = [name.replace("/", "_") + ending for name in stored for ending in (".jpg", ".txt", "")]
    names = PictureNames(stored, lambda name: len(name) % 2 == 0)
    for find in (names.match, names.match_stem, names.match_id):
        try:
            assert find(wanted).name in stored
        except ImageProblem as problem:
            assert problem.reason in (MISSING, AMBIGUOUS)


@given(st.text(min_size=1, max_size=12).filter(lambda name: "/" not in name and name not in (".", "..")))
def test_a_name_as_it_is_stored_finds_its_picture(name: str) -> None:
    stored = f"{name}.jpg"
    if "\\" not in name and not name.startswith("._") and "://" not in name:
        assert PictureNames([stored, "other.jpg"], lambda _: False).match(stored) == (stored, False)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "again").symlink_to(tmp_path)
    source = open_images(tmp_path)
    for name, kind in (("pipe", "a named pipe"), ("device", "a device"), ("socket", "a socket")):
        for ask in (source.find, source.size, source.load, source.read):
            with pytest.raises(ImageProblem) as caught:
                ask(f"{name}.jpg")
            assert caught.value.reason == NOT_A_FILE and kind in caught.value.detail
    door.close()
    for name in ("a" * 300 + ".jpg", "a/" * 3000 + "b.jpg", "loop.jpg"):
        with pytest.raises(ImageProblem) as caught:
            source.load(name)
        assert caught.value.reason == UNREADABLE and "too" in caught.value.detail
    with pytest.raises(ImageProblem, match=MISSING):
        source.load("nul\0.jpg")


def test_an_error_of_the_disk_is_the_pictures_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2, 1)).save(tmp_path / "a.png")

    def broken(path: object) -> object:
        raise OSError(5, "Input/output error")

    source = open_images(tmp_path)
    source.find("a.png")
    monkeypatch.setattr("mal_trt.formats.picture_folder.open_regular", broken)
    for ask in (source.size, source.load, source.read):
        with pytest.raises(ImageProblem) as caught:
            ask("a.png")
        assert (caught.value.reason, caught.value.detail) == (UNREADABLE, "a.png: Input/output error")
