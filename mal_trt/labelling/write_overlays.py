"""Pictures of a finished run: each labelled picture with its masks painted on it, at a size to look at."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import walk_files
from mal_trt.base.outputs import check_apart, check_local
from mal_trt.formats.images import ImageProblem, ImageSource, clean_name
from mal_trt.formats.overlay import DISPLAY_SIDE, display_size, draw_overlay
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.geometry.rle import decode_rle
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import by_picture, category_names

JPEG_SIDE = 65_500  # libjpeg's limit
LARGE_PICTURE = 1 << 25  # pixels above which pictures are drawn one by one, so that no two large ones are held


def write_overlays(
    journal: Journal,
    source: ImageSource,
    folder: Path,
    side: int = DISPLAY_SIDE,
    threads: int = 1,
    done: Callable[[int], None] = lambda pictures: None,
) -> None:
    """One JPEG per labelled picture, its masks painted on it, under its own name in `folder`.

    side: pixels of its longer side at most; 0: the picture's own size. done: called after each picture.
    """
    with ThreadPoolExecutor(threads, "mal-trt-draw") as pool:
        drawing: deque[Future[None]] = deque()
        try:
            for name, width, height, objects, names in _pictures(journal):
                work = pool.submit(_draw, source, folder, side, name, (width, height), objects, names)
                drawing.append(work)
                while drawing and (len(drawing) > threads or width * height > LARGE_PICTURE):
                    drawing.popleft().result()
                    done(1)
            for last in drawing:
                last.result()
                done(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def check_overlays(folder: str | Path | None, images: str | Path, resume: bool = False) -> None:
    """InputError if overlays there could take the place of input pictures; None is no overlay at all. resume: pictures
    in a folder below the inputs may be the overlays of the run that goes on."""
    if folder is None:
        return
    here, pictures = Path(folder).resolve(), Path(images)
    if pictures.is_dir():
        root = pictures.resolve()
        below = root in here.parents and not resume and any(map(has_picture_ending, walk_files(here)))
        links = ((here / name, root / name) for name in walk_files(here))
        taken = here == root or below or any(there.exists() and copy.samefile(there) for copy, there in links)
    else:
        copy = here / overlay_name(pictures.name)
        taken = copy.exists() and pictures.exists() and copy.samefile(pictures)
    if taken:
        raise InputError(f"{folder}: holds input pictures, which overlays could replace; choose another --overlay")


def check_sheet(path: Path, images: str | Path) -> None:
    """InputError if no contact sheet can be written under this name, or if it is an input picture."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path}: no kind of picture that can be written; give a name that ends in .png or .jpg")
    check_local(path)
    check_apart((path,), (images,))


def check_side(side: int) -> None:
    """InputError for a size that no overlay can have."""
    if side and not 16 <= side <= JPEG_SIDE:
        raise InputError(f"overlay size {side}: expected 0 (the picture's own size) or 16 to {JPEG_SIDE} pixels")


def overlay_name(file_name: str, png: bool = False) -> str:
    """Where in the overlay folder a picture's overlay lies: its own name, made a JPEG's (or PNG's)."""
    name = clean_name(file_name)
    ending = ".png" if png else ".jpg"
    return name if name.lower().endswith(ending) else name + ending


_Row = tuple[Any, ...]


def _pictures(journal: Journal) -> Iterator[tuple[str, int, int, list[_Row], list[str]]]:
    """File name, width, height, rows of (x0, y0, x1, y1, rle) and the objects' names, of each labelled picture."""
    names = category_names(journal)
    for position, objects in by_picture(journal, "x0, y0, x1, y1, rle, category_id"):
        texts = [names.get(row[5], "") for row in objects] if names else []
        yield *journal.picture(position), [row[:5] for row in objects], texts


def _draw(
    source: ImageSource,
    folder: Path,
    side: int,
    name: str,
    size: tuple[int, int],
    objects: list[_Row],
    names: list[str],
) -> None:
    small = display_size(*size, side)
    try:
        picture = source.load_small(name, size, small)
    except ImageProblem as problem:
        raise RunError(f"{name}: labelled, but gone when its overlay was drawn ({problem})") from None
    masks = [decode_rle(json.loads(row[4])) for row in objects]
    drawn = draw_overlay(picture, masks, [row[:4] for row in objects], names, full=size)
    path = folder / overlay_name(name, png=max(small) > JPEG_SIDE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path, quality=92)
    except OSError as error:
        raise RunError(f"{path}: cannot write the overlay ({error.strerror or error})") from error
