"""What a request for masks asks, as JSON or as a form, checked."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mal_trt.base.errors import InputError
from mal_trt.serve.answers import UnknownKind

FIELDS = 16
Finite = Annotated[float, Field(allow_inf_nan=False)]


class LabelRequest(BaseModel):
    """Boxes of one picture, and how their masks are wanted."""

    model_config = ConfigDict(extra="forbid")

    boxes: list[tuple[Finite, Finite, Finite, Finite]] = Field(
        description="Boxes in pixels of the picture, origin top left, four numbers each."
    )
    box_format: Literal["xyxy", "xywh"] = Field(
        description="`xyxy`: left, top, right, bottom. `xywh`, as COCO has it: left, top, width, height."
    )
    output: Literal["rle", "polygons", "png"] = Field(
        "rle",
        description="`rle`: COCO's compressed run lengths. `polygons`: COCO's polygons, one for each part, exact "
        "unless simplified. `png`: the mask's window of the picture, 0 and 255, as base64.",
    )
    threshold: float | None = Field(
        None, ge=0, lt=1, description="A pixel belongs to the mask above this probability. Default: the server's."
    )
    simplify: float | None = Field(
        None, ge=0, le=1000, description="Leave out points of polygons at most this many pixels off the line."
    )


class LabelRequestJson(LabelRequest):
    """The same with its picture: sent, or named."""

    image: str | None = Field(None, description="The picture file, as base64.")
    picture: str | None = Field(None, description="Instead of `image`: the name of a picture of `--images`.")


class LabelRequestForm(LabelRequest):
    """The same as multipart/form-data: `image` is the picture file, `boxes` is JSON."""

    image: bytes | None = Field(None, json_schema_extra={"format": "binary"}, description="The picture file.")
    picture: str | None = Field(None, description="Instead of `image`: the name of a picture of `--images`.")


async def read_label_request(request: Request) -> tuple[LabelRequest, bytes | str]:
    """What a request asks, and its picture: a file's bytes or a name. InputError says what is wrong with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = _parsed(LabelRequestJson, await request.body())
        if (asked.image is None) == (asked.picture is None):
            raise InputError("expected either `image`, a picture file as base64, or `picture`, the name of one")
        return asked, _unpacked(asked.image) if asked.image is not None else asked.picture or ""
    if kind == "multipart/form-data":
        return await _form(request)
    raise UnknownKind(f"content type {kind[:80]!r}: expected multipart/form-data or application/json")


class _Parser(MultiPartParser):
    spool_max_size = 1 << 40  # never a file on the disk; the body's own limit holds


async def _form(request: Request) -> tuple[LabelRequest, bytes | str]:
    try:
        parser = _Parser(request.headers, request.stream(), max_files=1, max_fields=FIELDS, max_part_size=1 << 20)
        form = await parser.parse()
    except (MultiPartException, LookupError, ValueError) as error:
        raise InputError(f"the form cannot be read ({getattr(error, 'message', error)})") from None
    fields: dict[str, Any] = {}
    image: bytes | None = None
    for name, value in form.multi_items():
        if name in fields or (name == "image" and image is not None):
            raise InputError(f"{name[:80]}: given twice")
        if isinstance(value, UploadFile):
            if name != "image":
                raise InputError(f"{name[:80]}: a file; the only file is the picture, `image`")
            image = await value.read()
        else:
            fields[name] = value
    if "boxes" in fields:
        try:
            fields["boxes"] = json.loads(fields["boxes"])
        except (ValueError, RecursionError):
            raise InputError("boxes: not JSON; expected such as [[30, 40, 200, 260]]") from None
    picture = fields.pop("picture", None)
    if (image is None) == (picture is None):
        raise InputError("expected either `image`, a picture file, or `picture`, the name of one")
    try:
        asked = LabelRequest.model_validate(fields)
    except ValidationError as error:
        raise InputError(_first(error)) from None
    return asked, picture if image is None else image


def _parsed(kind: type[LabelRequestJson], body: bytes) -> LabelRequestJson:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_first(error)) from None


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return f"{where or 'body'}: {first['msg']}"


def _unpacked(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("image: not base64") from None
