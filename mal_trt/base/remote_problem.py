"""What an error of a store means: it passes, or access is denied, or the bucket lies elsewhere. Stores are `remote`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

MOMENT = "moment"
DENIED = "denied"
REGION = "region"
EXISTS = "exists"
OTHER = "other"

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_CODES = {
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed"), REGION),
    "IllegalLocationConstraintException": REGION,
    **dict.fromkeys(("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"), DENIED),
    "400": REGION,  # a HEAD request gets no other code
    **dict.fromkeys(("PreconditionFailed", "ConditionalRequestConflict"), EXISTS),
    **dict.fromkeys(("SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling"), MOMENT),
}
# Of packages that need not be here: known by their names.
_NAMES = {
    **dict.fromkeys(("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionError"), MOMENT),
    **dict.fromkeys(("HTTPClientError", "ConnectionClosedError", "ResponseStreamingError"), MOMENT),
    "ServerTimeoutError": MOMENT,
    **dict.fromkeys(("ClientConnectorError", "ClientOSError", "ServerDisconnectedError", "ClientPayloadError"), MOMENT),
    **dict.fromkeys(("IncompleteRead", "IncompleteReadError", "FSTimeoutError"), MOMENT),
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"), DENIED),
}


def judged(error: BaseException) -> str:
    """One of the kinds above, of an error and those that it came of."""
    for one in _chain(error):
        code, status = _answer(one)
        if code in _CODES:
            return _CODES[code]
        if status in _PASSING:
            return MOMENT
        if status in (301, 307):
            return REGION
        if status in (401, 403):
            return DENIED
        if isinstance(one, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            return OTHER
        if isinstance(one, FileExistsError):
            return EXISTS
        if isinstance(one, PermissionError):
            return DENIED
        if isinstance(one, (TimeoutError, asyncio.TimeoutError, ConnectionError)):
            return MOMENT
        for kind in type(one).__mro__:
            if kind.__name__ in _NAMES:
                return _NAMES[kind.__name__]
    return OTHER


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        # What an error was translated from says more than its translation.
        seen.append(one)
        one = one.__cause__ or one.__context__
    yield from reversed(seen)


def _answer(error: BaseException) -> tuple[str, int | None]:
    """A server's code, such as "AccessDenied", and its HTTP status, where an error carries them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code, status if isinstance(status, int) else None
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return "", value
    return "", None
