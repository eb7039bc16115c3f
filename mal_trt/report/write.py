"""A report's content becomes a folder: pages of data, crops, the page itself."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.processor import usable_cores
from mal_trt.base.progress import Progress
from mal_trt.base.version import __version__
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.report.content import Content
from mal_trt.report.crops import crop_of
from mal_trt.report.folder import MARK, report_folder
from mal_trt.report.page import page
from mal_trt.report.shown import Shown, ShownPicture
from mal_trt.report.survey import Survey

SCHEMA = 1
PAGE = 100  # objects of one file of data
SKIPPED_PAGE = 500
FOLDER = 1000  # crops of one folder
SIDE, LEAST_SIDE, MANY = 288, 96, 5000  # pixels of a crop; of more than MANY objects they are smaller
FINE_SIDE, FINE = 720, 60  # side of the crops of that many objects at either end, which people look at first
LARGE_PICTURE = 1 << 25  # pixels above which pictures are read one by one
ASSETS = ("report.css", "theme.js", "objects.js", "viewer.js")


@dataclass(frozen=True)
class Report:
    """A report that was written. page: its index.html. objects: how many there are; shown: how many of them can be
    looked at. skipped: records without a mask. unread: pictures that could not be read, whose crops are left grey."""

    page: Path
    objects: int
    shown: int
    skipped: int
    unread: int


def write(
    content: Content, source: ImageSource | None, out: Path, threads: int | None = None, progress: bool = True
) -> Report:
    """Write a report into the folder `out`, see `report_folder`. source: the pictures; None where no object is shown.

    RunError if the disk refuses.
    """
    with report_folder(out) as folder:
        for name in ("assets", "data", "crops"):
            (folder / name).mkdir()
        for name in ASSETS:
            (folder / "assets" / name).write_bytes((files("mal_trt.report") / "assets" / name).read_bytes())
        survey = Survey(content.pictures(), content.by)
        unread = 0
        if source is not None and len(survey):
            with Progress("drawing the report", len(survey.order), unit="objects", show=progress) as bar:
                unread = _objects(content, survey, source, folder, threads or usable_cores(), bar)
        if len(survey):
            index = {**survey.index(), "page": PAGE, "layers": list(content.layers)}
            _script(folder / "data" / "index.js", "index", index)
        skipped = _skipped(content.skipped, folder)
        if unread:
            content.notes.append(f"{unread:,} pictures could not be read; their masks are shown on grey.")
        if len(survey.order) < len(survey):
            content.notes.append(
                f"{len(survey.order):,} of {len(survey):,} objects are shown: the half with the lowest "
                f"{'IoU' if survey.by == 'iou' else 'score'}, and others spread evenly. Figures are of all."
            )
        (folder / "index.html").write_bytes(page(content, survey, skipped, content.figures(survey)))
        mark = {"mal_trt_report": SCHEMA, "mal_trt": __version__, "title": content.title, "objects": len(survey)}
        (folder / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
    return Report(out / "index.html", len(survey), len(survey.order), sum(skipped.values()), unread)


def _objects(content: Content, survey: Survey, source: ImageSource, folder: Path, threads: int, bar: Progress) -> int:
    """Crops and pages of data; returns how many pictures could not be read."""
    count = len(survey.order)
    rank = np.full(len(survey), -1, np.int64)
    rank[survey.order] = np.arange(count)
    for number in range(-(-count // FOLDER)):
        (folder / "crops" / f"{number:03d}").mkdir()
    side = max(LEAST_SIDE, min(SIDE, round(SIDE * (MANY / count) ** 0.5)))
    entries: list[str] = [""] * count
    unread = 0
    working: deque[Future[tuple[bool, dict[int, str]]]] = deque()

    def take() -> None:
        nonlocal unread
        read, drawn = working.popleft().result()
        unread += not read
        for place, text in drawn.items():
            entries[place] = text
        bar.advance(len(drawn))

    with ThreadPoolExecutor(threads, "mal-trt-report") as pool:
        try:
            for picture, ranked in _ranked(content.pictures(), rank):
                sides = {place: FINE_SIDE if place < FINE or place >= count - FINE else side for place in ranked}
                working.append(pool.submit(_draw, source, folder, picture, ranked, sides))
                while working and (len(working) > 2 * threads or picture.width * picture.height > LARGE_PICTURE):
                    take()
            while working:
                take()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for number, first in enumerate(range(0, count, PAGE)):
        body = ",\n".join(entries[first : first + PAGE])
        (folder / "data" / f"page-{number:05d}.js").write_text(f"MAL.page({number},[\n{body}\n]);\n", encoding="ascii")
    return unread


def _ranked(pictures: Iterator[ShownPicture], rank: np.ndarray) -> Iterator[tuple[ShownPicture, dict[int, Shown]]]:
    """Pictures with the objects of them that are shown, by their place on the pages."""
    seen = 0
    for picture in pictures:
        places = rank[seen : seen + len(picture.objects)].tolist()
        seen += len(places)
        ranked = {place: shown for place, shown in zip(places, picture.objects, strict=True) if place >= 0}
        if ranked:
            yield picture, ranked


def _draw(
    source: ImageSource, folder: Path, picture: ShownPicture, ranked: dict[int, Shown], sides: dict[int, int]
) -> tuple[bool, dict[int, str]]:
    """The crops of one picture's objects, and their entries for the pages of data; whether the picture was read."""
    size = picture.width, picture.height
    problem = ""
    pixels = None
    try:
        pixels = source.load(picture.name, size)
    except ImageProblem as found:
        problem = found.reason
    drawn = {}
    for place, shown in ranked.items():
        crop = crop_of(pixels, size, shown, sides[place])
        if crop.jpeg is not None:
            (folder / "crops" / f"{place // FOLDER:03d}" / f"{place:06d}.jpg").write_bytes(crop.jpeg)
        x0, y0, x1, y1 = (round(value, 2) for value in shown.box)
        entry = {
            "id": _said(shown.key),
            "picture": picture.name,
            "at": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            "share": round(shown.box_share, 3),
            **crop.lines,
            **({"problem": problem} if problem else {}),
        }
        drawn[place] = _json(entry)
    return not problem, drawn


def _skipped(records: Iterable[dict[str, Any]], folder: Path) -> dict[str, int]:
    """Pages of what was skipped; how many for each reason."""
    counts: dict[str, int] = {}
    rest = iter(records)
    number = 0
    while chunk := list(islice(rest, SKIPPED_PAGE)):
        for record in chunk:
            reason = str(record.get("reason"))
            counts[reason] = counts.get(reason, 0) + 1
        records = [{name: _said(value) for name, value in record.items()} for record in chunk]
        _script(folder / "data" / f"skipped-{number:05d}.js", f"skipped,{number}", records)
        number += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _said(value: Any) -> Any:
    """An id as a page says it: as text where JavaScript, whose numbers hold 53 bits, would round it."""
    return str(value) if isinstance(value, int) and abs(value) >= 1 << 53 else value


def _script(path: Path, call: str, value: Any) -> None:
    """`MAL.name(arguments, value)`: a page that was opened from the disk may read scripts, but no JSON."""
    name, *arguments = call.split(",")
    path.write_text(f"MAL.{name}({','.join([*arguments, _json(value)])});\n", encoding="ascii")


def _json(value: Any) -> str:
    """JSON in ASCII that is JavaScript too, and holds no tag."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
