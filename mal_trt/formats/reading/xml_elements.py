"""XML label files, piece by piece, with nothing in them expanded or fetched."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular

CHUNK = 1 << 16
DEEPEST = 100
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"'][^>]*\?>")


class _Refused(Exception):
    pass


def root_tag(file: Path) -> str:
    """The name of the outermost element of a file; nothing if it is no XML."""
    try:
        return next(elements(file, None)).tag
    except (InputError, StopIteration):
        return ""


def elements(file: Path, tags: frozenset[str] | None) -> Iterator[Element]:
    """The elements of the given names right below the outermost one, each dropped when the next is asked for, and last
    the outermost with all else. tags None: the outermost element as it opens, and no more.

    InputError names file and line where it is no XML, and refuses documents that define entities.
    """
    reader = _Reader(tags)
    try:
        with open_regular(file) as stream:
            head = stream.read(CHUNK)
            decoder = _decoder(head)
            while True:
                chunk = head
                head = stream.read(CHUNK)
                text = chunk if decoder is None else _undeclared(decoder.decode(chunk, not head)).encode()
                reader.feed(text, not head)
                yield from reader.done()
                if tags is None and reader.opened is not None:
                    yield reader.opened
                    return
                if not head:
                    return
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    except expat.ExpatError as error:
        if tags is None and reader.opened is not None:  # what is wrong further down is for who reads on
            yield reader.opened
            return
        raise InputError(f"{file}:{error.lineno}: not well-formed XML ({expat.ErrorString(error.code)})") from None
    except (_Refused, UnicodeError, LookupError, ValueError) as error:
        raise InputError(f"{file}:{reader.line}: cannot be read as XML ({error})") from None


def parse_text(text: str, where: str) -> Element:
    """The outermost element of a short text; InputError as for `elements`, with `where` in the place of the file."""
    reader = _Reader(frozenset())
    try:
        reader.feed(text.encode(), True)
    except expat.ExpatError as error:
        raise InputError(f"{where}: not well-formed XML ({expat.ErrorString(error.code)})") from None
    except (_Refused, ValueError) as error:
        raise InputError(f"{where}: cannot be read as XML ({error})") from None
    return reader.done()[-1]


class _Reader:
    def __init__(self, tags: frozenset[str] | None) -> None:
        self._tags = tags
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity
        self._parser.ExternalEntityRefHandler = self._entity
        self._builder = TreeBuilder()
        self._depth = 0
        self._done: list[Element] = []
        self._root: Element | None = None
        self.opened: Element | None = None

    @property
    def line(self) -> int:
        return self._parser.CurrentLineNumber

    def feed(self, data: bytes, last: bool) -> None:
        self._parser.Parse(data, last)

    def done(self) -> list[Element]:
        """The elements that have ended since it was last asked."""
        done, self._done = self._done, []
        return done

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _Refused(f"elements nested more than {DEEPEST} deep")
        element = self._builder.start(tag, attributes)
        if self._depth == 1:
            self._root = self.opened = element

    def _end(self, tag: str) -> None:
        element = self._builder.end(tag)
        self._depth -= 1
        if self._depth == 1 and self._tags is not None and tag in self._tags and self._root is not None:
            self._root.remove(element)
            self._done.append(element)
        elif self._depth == 0:
            self._done.append(element)

    def _text(self, text: str) -> None:
        self._builder.data(text)

    def _entity(self, *what: object) -> int:
        raise _Refused("it defines entities, which no label file needs")


def _decoder(head: bytes) -> codecs.IncrementalDecoder | None:
    """A decoder for an encoding that the parser itself does not know, such as GB2312."""
    found = _DECLARED.match(head)
    name = found.group(1).decode("ascii").lower() if found else "utf-8"
    if name in ("utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1"):
        return None
    return codecs.getincrementaldecoder(name)()


def _undeclared(text: str) -> str:
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1)
