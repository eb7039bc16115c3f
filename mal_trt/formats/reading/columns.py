"""The columns of a table of boxes, known by their usual names: what each row says of picture, class, box and score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mal_trt.base.errors import InputError

# The usual names, without case, spaces, `_`, `-` and `.`; of several that are there the first one counts.
IMAGE = (
    *("filename", "imagefilename", "imagename", "imagepath", "filepath", "image", "img", "imgname", "imgpath"),
    *("path", "file", "imageid", "imgid", "imagefile", "picture", "photo", "frame", "externalid", "uri", "imageuri"),
    *("url", "imageurl", "id"),
)
CLASS = (
    *("class", "classname", "label", "labelname", "category", "categoryname", "name", "object", "objectclass", "cls"),
    *("classid", "labelid", "categoryid", "type", "species", "tag"),
)
SCORE = ("score", "confidence", "conf", "prob", "probability")
MASK = ("counts",)
SPLIT = ("split", "set", "subset", "mlset", "partition", "fold", "usage")
WIDTH = ("imagewidth", "imgwidth", "imwidth", "imgw", "imagew", "picturewidth")
HEIGHT = ("imageheight", "imgheight", "imheight", "imgh", "imageh", "pictureheight")
LEFT = ("xmin", "x1", "x0", "left", "minx", "bboxxmin", "bboxx1", "boxxmin", "xleft", "xtl", "bbx1", "xstart")
TOP = ("ymin", "y1", "y0", "top", "miny", "bboxymin", "bboxy1", "boxymin", "ytop", "ytl", "bby1", "ystart")
RIGHT = ("xmax", "x2", "right", "maxx", "bboxxmax", "bboxx2", "boxxmax", "xright", "xbr", "bbx2", "xend")
BOTTOM = ("ymax", "y2", "bottom", "maxy", "bboxymax", "bboxy2", "boxymax", "ybottom", "ybr", "bby2", "yend")
RIGHT_OF_ZERO, BOTTOM_OF_ZERO = ("x1", *RIGHT), ("y1", *BOTTOM)  # where the first corner is x0, y0
X = ("x", "bboxx", "boxx", "bbx", "xmin", "left", "x1", "x0", "xtl", "minx")
Y = ("y", "bboxy", "boxy", "bby", "ymin", "top", "y1", "y0", "ytl", "miny")
W = ("w", "bboxw", "bboxwidth", "boxw", "boxwidth", "bbw", "width")
H = ("h", "bboxh", "bboxheight", "boxh", "boxheight", "bbh", "height")
CX = ("cx", "xcenter", "xcentre", "centerx", "centrex", "xc", "bboxcx", "xctr", "xmid")
CY = ("cy", "ycenter", "ycentre", "centery", "centrey", "yc", "bboxcy", "yctr", "ymid")
BOX = ("bbox", "box", "boundingbox", "xywh")


@dataclass(frozen=True)
class Columns:
    """Places of a row's values. box: four columns, or one that holds four numbers. form: what they are, "corners",
    "xywh" or "centre". size: of the picture. mask: COCO's compressed run lengths."""

    image: int
    box: tuple[int, ...]
    form: str
    kind: int | None = None
    score: int | None = None
    size: tuple[int, int] | None = None
    split: int | None = None
    mask: int | None = None


def plain(name: str) -> str:
    """A column's name as the lists here have it."""
    return re.sub(r"[\W_]", "", name).lower()


def find_columns(header: Sequence[str], where: str) -> Columns:
    """The columns that a header names; InputError says which is not found, and what the names are."""
    names: dict[str, int] = {}
    for place, name in enumerate(header):
        names.setdefault(plain(name), place)

    def first(known: Sequence[str]) -> int | None:
        return next((names[name] for name in known if name in names), None)

    box, form = _box(names)
    image = first(IMAGE)
    missing = [what for what, there in (("the picture's name", image is not None), ("the box", bool(box))) if not there]
    if image is None or not box:
        listed = ", ".join(repr(name) for name in header)
        raise InputError(
            f"{where}: no column for {' and '.join(missing)}; the columns are {listed[:300]}; expected names such as "
            "filename, class, xmin, ymin, xmax, ymax (or x, y, w, h)"
        )
    kind = first([name for name in CLASS if names.get(name) != image])
    width, height = first(WIDTH), first(HEIGHT)
    if width is None and height is None and {"width", "height"} <= names.keys() and names["width"] not in box:
        width, height = names["width"], names["height"]
    size = None if width is None or height is None else (width, height)
    return Columns(image, box, form, kind, first(SCORE), size, first(SPLIT), first(MASK))


def looks_like_header(header: Sequence[str]) -> bool:
    """Whether a line names the columns of boxes."""
    names = {plain(name) for name in header}
    return bool(names & set(IMAGE)) and bool(_box(dict.fromkeys(names, 0))[1]) or len(names & set(LEFT + RIGHT)) > 1


def named_box(fields: Sequence[str]) -> tuple[tuple[int, ...], str]:
    """Where the four numbers of a box are among its fields' names, and what they are; nothing where some are missing or
    one is there twice."""
    names = {plain(name): place for place, name in enumerate(fields)}
    places, form = _box(names)
    return (places, form) if len(places) == 4 and len(names) == len(fields) else ((), "")


def _box(names: dict[str, int]) -> tuple[tuple[int, ...], str]:
    """The box's columns and what they are; nothing where some are missing."""
    first: tuple[tuple[str, ...], ...] = (LEFT, TOP, RIGHT, BOTTOM)
    if "x0" in names and "x1" in names:
        first = (("x0",), ("y0",), RIGHT_OF_ZERO, BOTTOM_OF_ZERO)
    forms: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
        ("corners", first),
        ("centre", (CX, CY, W, H)),
        ("xywh", (X, Y, W, H)),
    )
    for form, sides in forms:
        places = [next((names[name] for name in side if name in names), None) for side in sides]
        if None not in places:
            return tuple(place for place in places if place is not None), form
    whole = next((names[name] for name in BOX if name in names), None)
    return ((whole,), "xywh") if whole is not None else ((), "")
