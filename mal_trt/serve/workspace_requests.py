"""What the page sends, checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import clip_box
from mal_trt.serve.picture_files import Picture

FARTHEST = 1e7  # pixels
MOST_RUNS = 1 << 22
Number = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=1, le=2**53)]
TOKEN = r"^[\w-]+$"
Token = Annotated[str, Field(min_length=8, max_length=64, pattern=TOKEN)]
Run = Annotated[int, Field(ge=0, le=2**40)]
BoxNumbers = Annotated[list[Number], Field(min_length=4, max_length=4, description="XYXY, picture pixels.")]


class PageRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Step(PageRequest):
    """token: chosen by the client for each step; the same step sent again is taken once."""

    token: Token | None = None


class Create(Step):
    """A new object."""

    box: BoxNumbers
    category: Id
    threshold: Threshold | None = None


class Change(Step):
    """What is to be different of an object; what is left out stays. redraw: let the model draw the mask again."""

    box: BoxNumbers | None = None
    category: Id | None = None
    threshold: Threshold | None = None
    state: Literal["new", "accepted", "rejected"] | None = None
    redraw: bool = False


class Brushed(Step):
    """A mask drawn by hand, as COCO's run lengths of the whole picture, column by column, background first."""

    counts: Annotated[list[Run], Field(min_length=1, max_length=MOST_RUNS)]


class Preview(PageRequest):
    """A box whose mask is looked at and not kept."""

    box: BoxNumbers
    threshold: Threshold | None = None


class Named(PageRequest):
    """The name of a class."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]


class ExportRequest(PageRequest):
    """accepted: only what was accepted, not all that was not rejected. simplify: see `label`."""

    format: Annotated[str, Field(max_length=40)]
    accepted: bool = False
    simplify: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None


def box_in(box: list[float], picture: Picture) -> tuple[float, float, float, float]:
    """The part of a box inside a measured picture; InputError if none is left."""
    clipped = clip_box(box, picture.width or 0, picture.height or 0)
    if clipped is None or clipped[2] - clipped[0] < 1e-3 or clipped[3] - clipped[1] < 1e-3:
        raise InputError(f"box {box}: has no area inside the picture, {picture.width}x{picture.height}")
    return clipped
