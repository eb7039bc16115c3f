"""HTML made of elements, so that no text can become a tag: whatever a name holds, it is escaped when it is written."""

from __future__ import annotations

from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "Element | str | None"


def el(tag: str, *children: Child, **attributes: str | int | float | None) -> Element:
    """An element with children in their order; attributes that are None are left out. An underscore at the end of an
    attribute's name is dropped (`class_`), others become hyphens (`aria_label`)."""
    made = Element(tag, {k.rstrip("_").replace("_", "-"): str(v) for k, v in attributes.items() if v is not None})
    for child in children:
        if child is None:
            continue
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def document(root: Element) -> bytes:
    """A whole HTML document in UTF-8; lone surrogates, which a file name can hold, are spelled out."""
    text = tostring(root, encoding="unicode", method="html")
    return f"<!doctype html>\n{text}\n".encode("utf-8", "backslashreplace")
