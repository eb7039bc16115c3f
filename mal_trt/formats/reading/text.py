"""Label files as text: byte order marks, UTF-16 and line ends are no matter, what is no text is said in one line."""

from __future__ import annotations

import codecs
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular

HEAD = 1 << 16  # bytes that tell what a file is


def read_bytes(file: Path, most: int = -1) -> bytes:
    """The bytes of a regular file, or its first ones; InputError if it cannot be read."""
    try:
        with open_regular(file) as stream:
            return stream.read(most)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 or, with its mark, UTF-16; InputError names the line that is neither."""
    data = read_bytes(file)
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{file}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: not text, it holds null characters")
    return text


def head(file: Path) -> str:
    """What a file begins with, as text however broken; nothing if it cannot be read."""
    try:
        data = read_bytes(file, HEAD)
    except InputError:
        return ""
    return data.decode(_encoding(data), "replace")


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
