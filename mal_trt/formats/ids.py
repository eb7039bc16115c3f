"""Ids of records: one way to compare them, and to find those that a file writes once as a number and once as text."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # as Python and SQLite write a number


def identity(value: Any) -> int | float | str | None:
    """An id as SQLite compares it: 7 equals 7.0, but not "7"; None if it is no id at all."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    return value if abs(value) < 1 << 63 else str(value)


def other_type(key: int | float | str | None) -> int | str | None:
    """An id of `identity` as text if it is a number, as a number if it is the text of one; else None."""
    if isinstance(key, str):
        return int(key) if _WHOLE.fullmatch(key) else None
    return str(key) if isinstance(key, int) else None


def same_id(value: Any, known: Container[Any]) -> Any:
    """An id as the records that it refers to write it: `"7"` is 7 where there is a 7 and no `"7"`, and the reverse.
    known: those of the records, of `identity`."""
    key = identity(value)
    other = None if key in known else other_type(key)
    return value if other is None or other not in known else other


def storable(text: str) -> str:
    """The text with lone surrogates, which JSON can express and SQLite cannot, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
