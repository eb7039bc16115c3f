"""Answers that every part of the server gives: an error as one line of JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse

from mal_trt.base.errors import InputError, RunError


class UnknownKind(InputError):
    """A body of a content type that is not taken."""


class NotFound(InputError):
    """Something that was asked for by name and is not there."""


class OtherWork(InputError):
    """A page of other work than that which the server is at: its pictures and objects have the same numbers."""


class NotKept(RunError):
    """What the disk does not take now; sent again later, it may be kept."""


def error_answer(
    status: int,
    text: str,
    *,
    retry_after: int | None = None,
    authenticate: bool = False,
) -> JSONResponse:
    """{"error": text}. authenticate: say how a token is shown."""
    headers = {"cache-control": "no-store"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    if authenticate:
        headers["www-authenticate"] = 'Bearer realm="mal-trt", Basic realm="mal-trt"'
    return JSONResponse({"error": text}, status, headers)
