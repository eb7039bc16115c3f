"""Boxes as a table, a row each: CSV of any separator, and what its rows become. Parquet gives the same rows."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Builder, Document, ReadResult
from mal_trt.formats.reading.columns import Columns, find_columns, looks_like_header, named_box
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.formats.reading.places import split_name
from mal_trt.formats.reading.text import read_text

SEPARATORS = ",;\t|"
# A share of the picture may stand a rounding error outside it.
SHARE = 1.001
EMPTY = ("", "nan", "none", "null", "na", "[]")
HEADLESS = ["image", "x1", "y1", "x2", "y2", "class"]
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(_NUMBER)
# A number with its name, as JSON or Python writes it.
_NAMED_ONE = re.compile(r"""[^\W\d]\w*["']?\s*[:=]""")
_NAMED = re.compile(rf"""([^\W\d]\w*)["']?\s*[:=]\s*["']?({_NUMBER})""")


@dataclass(frozen=True)
class Table:
    """A table's header and rows, each row with the line it stands on. comma: decimals are written with a comma."""

    file: Path
    columns: Columns
    rows: Iterable[tuple[int, Sequence[str]]]
    comma: bool = False


@dataclass
class _Row:
    picture: int
    kind: str
    values: list[float]
    form: str
    more: Document = field(default_factory=dict)


def read_csv(files: list[Path], images: ImageSource, split: str | None = None) -> ReadResult:
    """The document of CSV files."""
    return read_tables([csv_table(file) for file in files], images, split)


def csv_table(file: Path) -> Table:
    """A CSV file: its separator and header found, or, without a header, `path, x1, y1, x2, y2, class`."""
    text = read_text(file)
    first = 0
    if text[:4].lower() == "sep=":
        text, first = text.partition("\n")[2], 1
    separator = _separator(text)
    csv.field_size_limit(1 << 30)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        header = next((row for row in rows if any(cell.strip() for cell in row)), None)
        if header is None:
            raise InputError(f"{file}: an empty file; expected a line that names the columns")
        if _is_headless(header):
            columns = find_columns(HEADLESS, str(file))
            rest = iter([(rows.line_num + first, header)])
        else:
            columns, rest = find_columns(header, f"{file}:{rows.line_num + first}"), iter(())
        found = [*rest, *((rows.line_num + first, row) for row in rows)]
        for line, row in found:
            if any(cell.strip() for cell in row[len(header) :]):
                raise InputError(f"{file}:{line}: {len(row)} cells; the header has {len(header)} columns")
    except csv.Error as error:
        raise InputError(f"{file}:{rows.line_num + first}: not CSV ({error})") from None
    return Table(file, columns, found, separator in ";\t")


def is_csv(text: str) -> bool:
    """Whether a file that begins so is a table of boxes."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lower().startswith("sep=")]
    if not lines:
        return False
    cells = next(csv.reader([lines[0]], delimiter=_separator(lines[0]), skipinitialspace=True), [])
    return looks_like_header(cells) or _is_headless(cells)


def read_tables(tables: Sequence[Table], images: ImageSource, split: str | None = None) -> ReadResult:
    """The document of tables. Boxes whose numbers all lie between 0 and 1 are shares of their picture."""
    build = Builder(images)
    pictures: dict[str, int] = {}
    rows: list[_Row] = []
    splits: set[str] = set()
    for table in tables:
        for line, cells in table.rows:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{table.file}:{line}"
            if split is not None and table.columns.split is not None:
                one = split_name(_cell(cells, table.columns.split, where))
                splits.add(one)
                if one != split_name(split):
                    continue
            rows.extend(_row(build, pictures, table, cells, where))
    if split is not None and split_name(split) not in splits:
        there = ", ".join(sorted(splits)) or "none"
        raise InputError(f"{tables[0].file}: no split {split}; its splits: {there}")
    shares = bool(rows) and all(-SHARE + 1 <= v <= SHARE for row in rows for v in row.values)
    for row in rows:
        scale = build.size(row.picture) if shares else (1, 1)
        w, h = (side or 1 for side in scale)
        build.box(row.picture, row.kind, _xywh(row, w, h), **row.more)
    return build.finish()


def _row(build: Builder, pictures: dict[str, int], table: Table, cells: Sequence[str], where: str) -> Iterator[_Row]:
    columns = table.columns
    name = _cell(cells, columns.image, where).strip()
    if not name:
        raise InputError(f"{where}: no picture's name")
    if name not in pictures:
        size = columns.size and size_of(*(_cell(cells, place, where) for place in columns.size))
        pictures[name] = build.picture(_located(build, name), size or None)
    values, form = _values(table, cells, where)
    if not values:
        return  # a picture without a box
    kind = _cell(cells, columns.kind, where).strip() if columns.kind is not None else "object"
    score = _number(_cell(cells, columns.score, where), table.comma) if columns.score is not None else None
    more: Document = {} if score is None or not math.isfinite(score) else {"score": score}
    counts = _cell(cells, columns.mask, where) if columns.mask is not None else ""
    if counts and _number(counts, table.comma) is None:  # a number counts something else
        width, height = build.size(pictures[name])
        more["segmentation"] = {"size": [height, width], "counts": counts}
    yield _Row(pictures[name], kind, values, form, more)


def _values(table: Table, cells: Sequence[str], where: str) -> tuple[list[float], str]:
    """The box's numbers, none where a row has no box, and what they are, as `Columns.form` has it."""
    form = table.columns.form
    texts = [_cell(cells, place, where).strip() for place in table.columns.box]
    if all(text.lower() in EMPTY for text in texts):
        return [], form
    if len(texts) == 1 and _NAMED_ONE.search(texts[0]):
        texts, form = _named(texts[0], where)
    elif len(texts) == 1:
        texts = _NUMBERS.findall(texts[0])
    values = [_number(text, table.comma) for text in texts]
    numbers = [v for v in values if v is not None]
    if len(values) != 4 or len(numbers) != 4:
        raise InputError(f"{where}: the box is not four numbers ({', '.join(texts)[:80]})")
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{where}: a number of the box is not finite")
    return numbers, form


def _named(text: str, where: str) -> tuple[list[str], str]:
    """The numbers of an object or struct that names them, and what they are, as `Columns.form` has it."""
    found = _NAMED.findall(text)
    order, form = named_box([name for name, _ in found])
    if not order:
        shown = " ".join(text.split())[:80]
        raise InputError(
            f"{where}: a box with names that are not known ({shown}); expected x, y, width, height or xmin, ymin, "
            "xmax, ymax, each with a number"
        )
    return [found[place][1] for place in order], form


def _located(build: Builder, name: str) -> str:
    """The stored name of a picture by its name, or by its id."""
    found = build.locate(name)
    if found != name or has_picture_ending(name):
        return found
    try:
        return build.images.find_id(name)
    except ImageProblem:
        return name


def _xywh(row: _Row, width: float, height: float) -> list[float]:
    a, b, c, d = row.values
    if row.form == "corners":
        a, b, c, d = min(a, c), min(b, d), abs(c - a), abs(d - b)
    elif row.form == "centre":
        a, b = a - c / 2, b - d / 2
    return [a * width, b * height, c * width, d * height]


def _cell(cells: Sequence[str], place: int, where: str) -> str:
    if place >= len(cells):
        raise InputError(f"{where}: {len(cells)} cells; the header has more columns")
    return cells[place]


def _number(text: str, comma: bool) -> float | None:
    text = text.strip()
    if comma and "." not in text:
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None


def _separator(text: str) -> str:
    """What stands between the cells of the first line that is not empty."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return max(SEPARATORS, key=line.count)


def _is_headless(cells: Sequence[str]) -> bool:
    """Whether a line is `path, x1, y1, x2, y2, class` rather than names of columns."""
    if len(cells) != len(HEADLESS) or not has_picture_ending(cells[0].strip()):
        return False
    return all(_number(cell, False) is not None for cell in cells[1:5]) or not any(cells[1:])
