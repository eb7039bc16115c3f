"""The pictures of Label Studio's tasks: from the given folder, or fetched from the one Label Studio that was named."""

from __future__ import annotations

import base64
import binascii
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from mal_trt.base.errors import InputError, RunError
from mal_trt.serve.pictures import Pictures
from mal_trt.serve.settings import ServeSettings, origin_of

SECONDS = 30.0
LOCAL_FILES = "/data/local-files/"


class TaskPictures:
    """Bytes of the pictures that tasks name. Nothing is fetched from anywhere but the Label Studio of the settings."""

    def __init__(self, settings: ServeSettings, pictures: Pictures) -> None:
        self._pictures, self._most = pictures, settings.limits.body
        self._base = settings.label_studio
        self._origin = origin_of(self._base, "Label Studio") if self._base is not None else None
        self._key = settings.label_studio_key
        self._opener = urllib.request.build_opener(_SameOrigin(self._origin))

    def content(self, address: str) -> bytes:
        """The file at an address as tasks have it: a local file's, an upload's, a name, or the data itself.

        InputError if it may not be read or is not there, RunError if Label Studio does not answer.
        """
        if address.startswith("data:"):
            try:
                return base64.b64decode(address.partition(",")[2], validate=True)
            except (binascii.Error, ValueError):
                raise InputError("the picture's data: address is not base64") from None
        parts = urlsplit(address)
        if parts.path.startswith(LOCAL_FILES) and self._pictures.source is not None:
            return self._pictures.content(parse_qs(parts.query).get("d", [""])[0])
        if not parts.scheme and not address.startswith("/"):
            return self._pictures.content(unquote(address))
        return self._fetched(address)

    def _fetched(self, address: str) -> bytes:
        if self._base is None:
            raise InputError(
                f"{address[:200]}: lies in Label Studio; start the server with --label-studio ADDRESS, or with --images"
            )
        whole = urljoin(self._base, address)
        if _origin(whole) != self._origin:
            raise InputError(f"{address[:200]}: not an address of {self._base}; pictures elsewhere are not fetched")
        return self._get(whole, self._authorization())

    def _authorization(self) -> Mapping[str, str]:
        if not self._key:
            return {}
        if self._key.count(".") != 2:
            return {"Authorization": f"Token {self._key}"}
        # A personal access token only gets another one, which opens for some minutes.
        body = json.dumps({"refresh": self._key}).encode()
        answer = self._get(urljoin(str(self._base), "/api/token/refresh"), {"Content-Type": "application/json"}, body)
        try:
            return {"Authorization": f"Bearer {json.loads(answer)['access']}"}
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self._base}: no access token in its answer; check LABEL_STUDIO_API_KEY") from None

    def _get(self, address: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
        request = urllib.request.Request(address, body, dict(headers))
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                content: bytes = answer.read(self._most + 1)
        except urllib.error.HTTPError as error:
            advice = "; check LABEL_STUDIO_API_KEY" if error.code in (401, 403) else ""
            raise InputError(f"{address[:200]}: Label Studio answers {error.code}{advice}") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{address[:200]}: Label Studio cannot be reached ({error})") from None
        if len(content) > self._most:
            raise InputError(f"{address[:200]}: more than the limit of {self._most} bytes")
        return content


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirections only where they stay in one place, so that no token goes elsewhere."""

    def __init__(self, origin: tuple[str, str, int] | None) -> None:
        self._own = origin

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if _origin(newurl) != self._own:
            raise InputError(f"{req.full_url[:200]}: leads to {newurl[:80]}; pictures elsewhere are not fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _origin(address: str) -> tuple[str, str, int] | None:
    try:
        return origin_of(address, "Label Studio")
    except InputError:
        return None
