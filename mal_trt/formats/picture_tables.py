"""Pictures in Parquet files: a column of their bytes, or Hugging Face's column of bytes and path."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.base.places import Copies
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import clean_name

KEPT = 2  # row groups of pictures held at once
COLUMNS = ("image", "picture", "photo", "img", "jpg", "jpeg", "png", "bytes", "content")
NAMES = ("file_name", "filename", "image_path", "path", "name", "key", "__key__", "image_id", "id")


class PictureColumn(NamedTuple):
    """Where the pictures of a Parquet file are. column: of bytes, or of {bytes, path}. names: column of their names,
    None where they have none but their place."""

    column: str
    nested: bool
    names: str | None


class ParquetPictures(ImageSource):
    """The pictures of Parquet files, by the names that stand beside them, or else as `<file>/<row>`."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self._copies = Copies()
        self._places: dict[str, tuple[str, int, int]] = {}
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()
        for place in places:
            with opened_parquet(place, self._copies) as table:
                found = picture_column(table.schema_arrow)
                if found is None:
                    raise InputError(
                        f"{place}: no column holds pictures' bytes; the columns are "
                        f"{', '.join(table.schema_arrow.names)[:300]}"
                    )
                for name, group, row in _rows(table, found, place):
                    self._places.setdefault(name, (place, group, row))

    def find(self, file_name: str) -> str:
        """See `ImageSource.find`."""
        name = clean_name(file_name)
        return name if name in self._places else super().find(file_name)

    def _list(self) -> Iterable[str]:
        return self._places

    def _is_picture(self, name: str) -> bool:
        return True

    def _stream(self, name: str) -> BinaryIO:
        place, group, row = self._places[name]
        with self._lock:
            if (place, group) not in self._kept:
                with opened_parquet(place, self._copies) as table:
                    found = picture_column(table.schema_arrow)
                    if found is None:
                        raise OSError(f"{place}: changed while it was read")
                    path = f"{found.column}.bytes" if found.nested else found.column
                    read = table.read_row_group(group, columns=[path]).column(found.column)
                    self._kept[place, group] = read
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((place, group))
            value = self._kept[place, group][row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise FileNotFoundError(name)
        return io.BytesIO(content)


class _Opened:
    """A Parquet file that closes what it reads."""

    def __init__(self, place: str, copies: Copies) -> None:
        try:
            import pyarrow.parquet as parquet
        except ModuleNotFoundError:
            raise RunError('Parquet needs pyarrow; run: pip install "mal-trt[parquet]"') from None
        self._place = place
        try:
            self._stream = copies.open(place)
        except FileNotFoundError:
            raise InputError(f"{place}: no such file") from None
        try:
            self._table = parquet.ParquetFile(self._stream)
        except (OSError, ValueError) as error:
            self._stream.close()
            raise InputError(f"{place}: cannot be read as Parquet ({one_line(error)})") from None

    def __enter__(self) -> Any:
        return self._table

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stream.close()
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, InputError):
            raise InputError(f"{self._place}: cannot be read as Parquet ({one_line(error)})") from None


def opened_parquet(place: str | Path, copies: Copies) -> _Opened:
    """A Parquet file as pyarrow has it, inside a `with`; InputError if it is none, or not whole."""
    return _Opened(str(place), copies)


def picture_column(schema: Any) -> PictureColumn | None:
    """The column of pictures that a schema has, or None."""
    import pyarrow as arrow

    def is_bytes(kind: Any) -> bool:
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    plain = {name.lower(): name for name in schema.names}
    names = next((plain[name] for name in NAMES if name in plain and _is_name(schema.field(plain[name]).type)), None)
    for known in COLUMNS:
        if known not in plain:
            continue
        kind = schema.field(plain[known]).type
        if is_bytes(kind):
            return PictureColumn(plain[known], False, names)
        if arrow.types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind):
            return PictureColumn(plain[known], True, names)
    return None


def row_name(place: str | Path, row: int, given: Any) -> str:
    """What the picture of a row is called: as its row says, else by its file and row."""
    text = clean_name(given) if isinstance(given, str) else ""
    return text or f"{PurePosixPath(str(place)).stem}/{row:08d}"


def given_names(table: Any, found: PictureColumn, group: int) -> list[Any]:
    """What the rows of a row group say that their pictures are called; None where they do not."""
    if found.names is not None:
        return [None if v is None else str(v) for v in table.read_row_group(group, [found.names]).column(0).to_pylist()]
    rows = table.metadata.row_group(group).num_rows
    if not found.nested or "path" not in [f.name for f in table.schema_arrow.field(found.column).type]:
        return [None] * rows
    values = table.read_row_group(group, columns=[f"{found.column}.path"]).column(found.column).to_pylist()
    return [value.get("path") if isinstance(value, dict) else None for value in values]


def _rows(table: Any, found: PictureColumn, place: str) -> Iterator[tuple[str, int, int]]:
    before = 0
    for group in range(table.num_row_groups):
        given = given_names(table, found, group)
        for row, name in enumerate(given):
            yield row_name(place, before + row, name), group, row
        before += len(given)


def _is_name(kind: Any) -> bool:
    import pyarrow as arrow

    return bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind) or arrow.types.is_integer(kind))
