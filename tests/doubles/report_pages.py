"""A reader of reports that knows what a browser knows, and names that no page must take for tags."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

HOSTILE = "</script><script>alert(1)</script>"
NAMES = (HOSTILE, '"><img src=x onerror=alert(1)>', "tall & <wide> \u2028 ü")
VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """An index.html: its elements as (tag, attributes), its texts, and whether every element is closed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.named: list[tuple[str, str]] = []  # texts with the element they stand in
        self.feed((folder / "index.html").read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if data.strip():
            self.named.append((self.open[-1], data))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def cards(self) -> dict[str, str]:
        """The text after each heading of a card, a fact or a row; of equal headings the first counts."""
        found: dict[str, str] = {}
        for (kind, name), (_, value) in pairwise(self.named):
            if kind in ("dt", "th"):
                found.setdefault(name, value)
        return found


def data_of(folder: Path, kind: str) -> Any:
    """What the scripts of data of one kind give the page: the index, or all pages in their order."""
    files = sorted((folder / "data").glob(f"{kind}*.js"))
    values = []
    for number, file in enumerate(files):
        text = file.read_text(encoding="ascii")
        call = re.fullmatch(r"MAL\.(\w+)\((?:(\d+),)?(.*)\);\n", text, re.S)
        assert call and call[1] == kind and call[2] in (None, str(number))
        assert "<" not in text
        values.append(json.loads(call[3]))
    return values[0] if kind == "index" else [entry for page in values for entry in page]
