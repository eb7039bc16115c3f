"""COCO documents read piece by piece, in memory that does not grow with the file.

A document is an object whose `images` and `annotations` are lists, or a bare list of results. Their elements
are decoded one at a time; other keys (info, licenses, categories) as whole values.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular

STREAMED = ("images", "annotations")
BARE_LIST = ""

CHUNK = 1 << 18  # characters
# The longest JSON token whose end cannot be told without looking further ("-Infinity", a \uXXXX pair) is
# shorter.
LOOKAHEAD = 32
SPACE = re.compile(r"[ \t\n\r]*")

_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class Entry:
    """One piece of a document, in file order.

    key: the top-level key, BARE_LIST in a bare list. index: place in a streamed list; None for a key's whole
    value, and for the start of a streamed list, whose value is then []. text: the piece as written in the
    file. reason: why a box of another format cannot be one here, such as a rotated rectangle.
    """

    key: str
    index: int | None
    value: Any
    text: str
    reason: str | None = None


def read_document(path: str | Path) -> Iterator[Entry]:
    """The pieces of a COCO document. InputError names the file and place if it is not JSON or not COCO."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding=_encoding(path), newline="") as file:
            yield from _Reader(file, str(path)).entries()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not JSON in UTF-8 text ({error.reason})") from None


def _encoding(path: str | Path) -> str:
    """UTF-8, or UTF-16 where the file begins with its mark."""
    with open_regular(path) as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def document_entries(document: Mapping[str, Any], reasons: Mapping[int, str] | None = None) -> Iterator[Entry]:
    """The pieces of a COCO document that is in memory, as `read_document` gives those of its file. reasons: why an
    annotation, by its place, cannot be a box."""
    for key, value in document.items():
        if key not in STREAMED:
            yield Entry(key, None, value, json.dumps(value))
            continue
        yield Entry(key, None, [], "[]")
        for index, record in enumerate(value):
            reason = (reasons or {}).get(index) if key == "annotations" else None
            yield Entry(key, index, record, json.dumps(record), reason)


class _Reader:
    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._text = ""
        self._at = 0  # next character of _text
        self._dropped = 0  # characters before _text
        self._ended = False
        self._place = "the start"

    def entries(self) -> Iterator[Entry]:
        first = self._peek()
        if first == "[":
            yield from self._list(BARE_LIST)
        elif first == "{":
            yield from self._object()
        elif first:
            value, _ = self._value()
            raise InputError(
                f"{self._name}: its top level is {_kind(value)}; expected a COCO document or a results list"
            )
        else:
            raise InputError(f"{self._name}: an empty file; expected COCO JSON")
        self._place = "the end"
        if self._peek():
            raise self._bad("more text follows the document")

    def _object(self) -> Iterator[Entry]:
        seen: set[str] = set()
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise self._bad("expected a key in double quotes")
            key, _ = self._value()
            self._place = f"`{key}`"
            self._take(":")
            if key in seen:
                raise self._bad("the key occurs twice")
            seen.add(key)
            if key in STREAMED:
                if self._peek() != "[":
                    value, _ = self._value()
                    raise InputError(f"{self._name}: `{key}` is {_kind(value)}; expected a list")
                yield from self._list(key)
            else:
                self._peek()
                yield Entry(key, None, *self._value())
            if self._take(",}") == "}":
                return

    def _list(self, key: str) -> Iterator[Entry]:
        self._at += 1
        yield Entry(key, None, [], "[]")
        if self._peek() == "]":
            self._at += 1
            return
        index = 0
        while True:
            self._place = f"record {index} of {f'`{key}`' if key else 'the list'}"
            self._peek()
            value, text = self._value()
            if not isinstance(value, dict):
                raise InputError(f"{self._name}: {self._place} is {_kind(value)}; expected an object")
            yield Entry(key, index, value, text)
            index += 1
            if self._take(",]") == "]":
                return

    def _value(self) -> tuple[Any, str]:
        """Decode the value that starts here, and step behind it."""
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.pos + LOOKAHEAD >= len(self._text) or error.msg.startswith("Unterminated")
                if self._ended or not cut_off:
                    raise self._bad(error.msg, error.pos) from None
            except RecursionError:
                raise self._bad("nested too deeply") from None
            except ValueError as error:  # an integer of thousands of digits
                raise self._bad(str(error)) from None
            else:
                if self._ended or end + LOOKAHEAD < len(self._text):
                    text = self._text[self._at : end]
                    self._at = end
                    return value, text
            self._read(len(self._text) - self._at)  # at least doubles what is held of this value

    def _peek(self) -> str:
        """The next character that is not a space, without taking it; empty at the end of the file."""
        while True:
            space = SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read(0)

    def _take(self, allowed: str) -> str:
        found = self._peek()
        if not found or found not in allowed:
            raise self._bad(f"expected {' or '.join(allowed)}" + ("" if found else ", the file ends"))
        self._at += 1
        return found

    def _read(self, wanted: int) -> None:
        more = self._file.read(max(CHUNK, wanted))
        self._ended = not more
        self._text = self._text[self._at :] + more
        self._dropped += self._at
        self._at = 0

    def _bad(self, what: str, at: int | None = None) -> InputError:
        character = self._dropped + (self._at if at is None else at)
        what = what[:1].lower() + what[1:]
        return InputError(f"{self._name}: not valid JSON at character {character}, in {self._place}: {what}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
