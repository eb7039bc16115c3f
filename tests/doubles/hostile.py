"""Requests that nobody should send, each with the statuses that may come back. The servers are those of `serving`."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from label_data import blob_picture
from serving import form, png


class Request(NamedTuple):
    """name: what is wrong with it. raw: its bytes. statuses: of the answer, one of these."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


def http(
    method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, length: bool = True
) -> bytes:
    """The bytes of a request that is well formed but for what it says."""
    lines = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if body and length and "Content-Length" not in lines:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    whole = name + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says it is so large; of its pixels there are none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def saved(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(blob_picture(120, 80)).save(stream, kind, **options)
    return stream.getvalue()


def label_json(document: Any, status: int = 400, name: str = "", **headers: str) -> Request:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Request(name, http("POST", "/v1/label", body, {"Content-Type": "application/json", **headers}), (status,))


def names() -> list[Request]:
    """Names of pictures that lead elsewhere, or to nothing."""
    deep = "a/" * 3000 + "b.png"
    cases: list[tuple[Any, int]] = [
        ("../outside.png", 400),
        ("../../../../../../etc/passwd", 400),
        ("/etc/passwd", 400),
        ("sub/../../outside.png", 400),
        ("sub/./b.png", 400),
        ("..", 400),
        (".", 400),
        ("", 400),
        ("sub", 404),
        ("sub/", 400),
        ("sub//b.png", 400),
        ("..%2foutside.png", 404),
        ("%2e%2e/outside.png", 404),
        ("....//outside.png", 400),
        ("..\\outside.png", 400),
        ("C:\\Windows\\win.ini", 400),
        ("\\\\server\\share\\a.png", 400),
        ("file:///etc/passwd", 400),
        ("http://127.0.0.1/a.png", 400),
        ("~/.ssh/id_rsa", 404),
        ("a.png\x00.jpg", 400),
        ("a\n.png", 400),
        ("．．／outside.png", 404),
        ("link.png", 400),  # a link out of the folder
        ("linked/outside.png", 400),  # a folder that is one
        ("loop.png", 404),
        ("pipe.png", 404),  # a named pipe, which would never end
        ("proc.png", 400),  # a link to /proc/self/environ
        ("notes.txt", 400),  # there, but no picture
        ("a" * 300 + ".png", 400),
        (deep, 400),
        (["a.png"], 400),
        (7, 400),
    ]
    asked = {"boxes": [[6, 10, 34, 30]], "box_format": "xyxy"}
    found = [label_json({"picture": name, **asked}, status, f"picture {str(name)[:40]!r}") for name, status in cases]
    lone = b'{"picture": "\\ud800.png", "boxes": [[6, 10, 34, 30]], "box_format": "xyxy"}'
    return [*found, label_json(lone, 400, "picture with half a character")]


def targets() -> list[Request]:
    """Addresses that lead out of what is served."""
    found = [
        ("/static/../../../../etc/passwd", (404,)),
        ("/static/%2e%2e/%2e%2e/settings.py", (404,)),
        ("/static/..%2f..%2fsettings.py", (404,)),
        ("/static//etc/passwd", (404,)),
        ("/static/%5c..%5csettings.py", (404,)),
        ("/static/%00", (400,)),
        ("/v1/label%00", (400,)),
        ("/v1/label%0d%0aSet-Cookie:x", (400,)),
        ("//etc/passwd", (404,)),
        ("/%ff%fe", (404,)),
        ("/v1/../../etc/passwd", (404,)),
        ("/.git/config", (404,)),
        ("/?" + "a" * 70_000, (400, 414, 431)),
        ("/" + "a" * 70_000, (400, 414, 431)),
        ("*", (400, 404)),
        ("http://elsewhere.example/v1/models", (400, 404)),
    ]
    requests = [Request(f"GET {target[:40]}", http("GET", target), statuses) for target, statuses in found]
    for method, target in (
        ("DELETE", "/v1/label"),
        ("GET", "/v1/label"),
        ("PUT", "/"),
        ("TRACE", "/"),
        ("BREW", "/v1/models"),
    ):
        requests.append(Request(f"{method} {target}", http(method, target), (404, 405)))
    return requests


def heads() -> list[Request]:
    """Heads that are no HTTP/1.1, or that lie."""
    good = http("GET", "/v1/models")
    post = {"Content-Type": "application/json"}
    return [
        Request("noise", bytes(range(256)) * 4 + b"\r\n\r\n", (400,)),
        Request(
            "a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500 + b"\r\n\r\n", (400,)
        ),
        Request("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,)),
        Request("HTTP/0.9", b"GET /v1/models\r\n\r\n", (400,)),
        Request("HTTP/9.9", good.replace(b"HTTP/1.1", b"HTTP/9.9"), (400,)),
        Request("no Host", b"GET /v1/models HTTP/1.1\r\n\r\n", (400,)),
        Request("two Hosts", good.replace(b"Host:", b"Host: localhost\r\nHost:"), (400,)),
        Request("an empty Host", good.replace(b"localhost", b""), (400,)),
        Request("a Host that is none", good.replace(b"localhost", b"a/b"), (400,)),
        Request("a Host with a name and a password", good.replace(b"localhost", b"a:b@localhost"), (400,)),
        Request("a Host with a port that is none", good.replace(b"localhost", b"localhost:99999999"), (400,)),
        Request("another site's Host, for this address", good.replace(b"localhost", b"evil.example"), (421,)),
        Request("a NUL in a header", http("GET", "/", headers={"X": "a\x00b"}), (400,)),
        Request("a line break in a header", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", (400,)),
        Request("a header without a colon", b"GET / HTTP/1.1\r\nHost: localhost\r\nnothing\r\n\r\n", (400,)),
        Request("a header with a space", b"GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n", (400,)),
        Request("a header of 100 KB", http("GET", "/", headers={"X": "a" * 100_000}), (400, 431)),
        Request("10,000 headers", http("GET", "/", headers={f"X{i}": "a" for i in range(10_000)}), (400, 431)),
        Request(
            "two lengths",
            http("POST", "/v1/label", b"{}", {**post, "Content-Length": "2\r\nContent-Length: 9"}),
            (400,),
        ),
        Request("a negative length", http("POST", "/v1/label", b"{}", {**post, "Content-Length": "-1"}), (400,)),
        Request("a length in words", http("POST", "/v1/label", b"{}", {**post, "Content-Length": "two"}), (400,)),
        Request(
            "a length of 30 digits", http("POST", "/v1/label", b"{}", {**post, "Content-Length": "9" * 30}), (400, 413)
        ),
        Request(
            "length and chunks",
            http("POST", "/v1/label", b"0\r\n\r\n", {**post, "Content-Length": "5", "Transfer-Encoding": "chunked"}),
            (400,),
        ),
        Request(
            "an unknown transfer encoding", http("POST", "/v1/label", b"", {"Transfer-Encoding": "gzip"}), (400, 501)
        ),
        Request(
            "a chunk whose size is no number",
            http("POST", "/v1/label", b"zz\r\n{}\r\n", {**post, "Transfer-Encoding": "chunked"}, length=False),
            (400,),
        ),
        Request(
            "a chunk of endless size",
            http(
                "POST", "/v1/label", b"f" * 40 + b"\r\n{}\r\n", {**post, "Transfer-Encoding": "chunked"}, length=False
            ),
            (400,),
        ),
        Request(
            "an upgrade to WebSocket",
            http("GET", "/", headers={"Connection": "Upgrade", "Upgrade": "websocket"}),
            (200, 400, 404),
        ),
        Request(
            "a compressed body",
            http("POST", "/v1/label", zlib.compress(b"{}"), {**post, "Content-Encoding": "deflate"}),
            (415,),
        ),
        Request(
            "sent by another site's page",
            http("POST", "/v1/label", b"{}", {**post, "Origin": "https://evil.example"}),
            (403,),
        ),
        Request("sent by a page of no site", http("POST", "/v1/label", b"{}", {**post, "Origin": "null"}), (403,)),
        Request(
            "sent across sites", http("POST", "/v1/label", b"{}", {**post, "Sec-Fetch-Site": "cross-site"}), (403,)
        ),
    ]


def bodies() -> list[Request]:
    """Bodies that cannot be read, or ask for what is not there."""
    asked = {"picture": "a.png", "boxes": [[6, 10, 34, 30]], "box_format": "xyxy"}
    image = png(blob_picture(120, 80))

    def as_kind(kind: str, body: bytes, status: int, name: str) -> Request:
        return Request(name, http("POST", "/v1/label", body, {"Content-Type": kind} if kind else {}), (status,))

    def as_form(
        fields: dict[str, Any], name: str, change: tuple[bytes, bytes] = (b"", b""), status: int = 400
    ) -> Request:
        body, kind = form(fields)
        return as_kind(kind, body.replace(*change) if change[0] else body, status, name)

    fields: dict[str, Any] = {"image": image, "boxes": "[[6,10,34,30]]", "box_format": "xyxy"}
    big = {**asked, "padding": "a" * (1 << 20)}
    chunks = b"".join(b"10000\r\n" + b"a" * 0x10000 + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
    return [
        label_json(b"", 400, "an empty body"),
        label_json(b"{", 400, "half a JSON"),
        label_json(b"[" * 100_000, 400, "JSON 100,000 deep"),
        label_json(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "objects 50,000 deep"),
        label_json(b"\xff\xfe\x00", 400, "JSON that is no UTF-8"),
        label_json(json.dumps(asked).encode("utf-16"), 400, "JSON in UTF-16"),
        label_json([], 400, "a list"),
        label_json(None, 400, "null"),
        label_json("a.png", 400, "a string"),
        label_json({}, 400, "nothing asked"),
        label_json({**asked, "unknown": 1}, 400, "an unknown field"),
        label_json({**asked, "__proto__": {}}, 400, "a prototype"),
        label_json({**asked, "output": "pickle"}, 400, "pickles asked for"),
        label_json({**asked, "box_format": "cxcywh"}, 400, "another format of boxes"),
        label_json({**asked, "threshold": 1}, 400, "a threshold of 1"),
        label_json({**asked, "threshold": -0.1}, 400, "a negative threshold"),
        label_json({**asked, "threshold": float("nan")}, 400, "a threshold that is no number"),
        label_json({**asked, "output": "polygons", "simplify": 1e9}, 400, "too much simplified"),
        label_json({**asked, "image": base64.b64encode(image).decode()}, 400, "a picture sent and named"),
        label_json({k: v for k, v in asked.items() if k != "picture"}, 400, "no picture"),
        label_json(big, 413, "a body over the limit"),
        Request(
            "a body said to be over the limit",
            http("POST", "/v1/label", b"", {"Content-Type": "application/json", "Content-Length": "9999999"}),
            (413,),
        ),
        Request(
            "chunks over the limit",
            http(
                "POST",
                "/v1/label",
                chunks,
                {"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
                length=False,
            ),
            (413,),
        ),
        as_kind("", b"{}", 415, "no content type"),
        as_kind("text/plain", json.dumps(asked).encode(), 415, "JSON as text"),
        as_kind("application/xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 415, "XML"),
        as_kind("application/octet-stream", pickle.dumps({"a": 1}), 415, "a pickle"),
        as_kind("application/x-www-form-urlencoded", b"picture=a.png", 415, "a form of another kind"),
        as_kind("multipart/form-data", b"--x--", 400, "a form without a boundary"),
        as_kind("multipart/form-data; boundary=", b"--x--", 400, "a form with an empty boundary"),
        as_kind("multipart/form-data; boundary=limit", b"", 400, "an empty form"),
        as_kind("multipart/form-data; boundary=limit", b"\x00\xff" * 500, 400, "noise as a form"),
        as_form(fields, "a form that ends in the middle", (b"--limit--", b""), 400),
        as_form({**fields, "boxes": "[[6,10,34"}, "half the boxes"),
        as_form({**fields, "boxes": "[" * 50_000}, "boxes 50,000 deep"),
        as_form({**fields, "boxes": image}, "boxes as a file"),
        as_form({**fields, "image": "a.png"}, "the picture as text"),
        as_form({**fields, "picture": "a.png"}, "a picture sent and named, in a form"),
        as_form({**fields, **{f"f{i}": 1 for i in range(100)}}, "a hundred fields"),
        as_form({**fields, **{f"f{i}": b"1" for i in range(5)}}, "many files"),
        as_form(fields, "a part without a name", (b'; name="boxes"', b"")),
        as_form(fields, "a field twice", (b'name="box_format"', b'name="boxes"')),
    ]


def pictures() -> list[Request]:
    """Pictures that are broken, none, or too large once they are unpacked."""
    jpeg = saved("JPEG", quality=95)
    noise = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    flat = io.BytesIO()
    Image.new("L", (1000, 1000)).save(flat, "TIFF", compression="tiff_deflate")
    cases = {
        "no bytes": b"",
        "text": b"hello, I am a picture",
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "an EPS, which is a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "a PDF": b"%PDF-1.4\n",
        "a pickle as a picture": pickle.dumps(["a"]),
        "a zip": b"PK\x03\x04" + b"\0" * 100,
        "a JPEG that ends in its head": jpeg[:30],
        "a JPEG that ends in its middle": jpeg[: len(jpeg) // 2],
        "a JPEG whose middle is noise": jpeg[:200] + noise[:50] + b"\xff\xd8\xff\xff\x00",
        "a PNG that ends in its head": png(blob_picture(120, 80))[:20],
        "a PNG with a wrong checksum": png(blob_picture(120, 80))[:60] + b"XXXX" + png(blob_picture(120, 80))[64:],
        "a PNG of 50,000 x 50,000": png_header(50_000, 50_000),
        "a PNG of 2^31 - 1 x 2^31 - 1": png_header(2**31 - 1, 2**31 - 1),
        "a PNG of no width": png_header(0, 10),
        "a GIF of 65,535 x 65,535": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
        "a BMP of 2^31 x 2^31": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
        "a TIFF over the limit, a thousandth of it packed": flat.getvalue(),
        "a TIFF whose directory is itself": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
        "a WebP that is cut off": saved("WEBP")[:40],
        "a PPM that says 10^9 rows": b"P6 1000000000 1000000000 255\n" + noise,
    }
    fields = {"boxes": "[[6,10,34,30]]", "box_format": "xyxy"}
    requests = []
    for name, content in cases.items():
        body, kind = form({"image": content, **fields})
        requests.append(Request(name, http("POST", "/v1/label", body, {"Content-Type": kind}), (400,)))
    asked = {"boxes": [[6, 10, 34, 30]], "box_format": "xyxy"}
    for name, text in (
        ("not base64", "!!!!"),
        ("half base64", "iVBORw0KGgo"),
        ("no characters", ""),
        ("an address", "data:,"),
    ):
        requests.append(label_json({"image": text, **asked}, 400, f"image: {name}"))
    return requests


def boxes() -> list[Request]:
    """Boxes that are none."""
    inf = float("inf")
    cases: dict[str, Any] = {
        "not a number": [[1, 2, float("nan"), 4]],
        "without end": [[1, 2, inf, 4]],
        "minus without end": [[-inf, 2, 3, 4]],
        "turned round": [[30, 30, 10, 10]],
        "without width": [[10, 10, 10, 30]],
        "of three numbers": [[1, 2, 3]],
        "of five numbers": [[1, 2, 3, 4, 5]],
        "flat": [1, 2, 3, 4],
        "words": [["a", "b", "c", "d"]],
        "null": None,
        "null inside": [None],
        "nested": [[[1, 2, 3, 4]]],
        "an object": {"x": 1},
        "a string": "[[1,2,3,4]]",
        "21 of 20": [[1, 2, 30, 40]] * 21,
        "20,000": [[1, 2, 3, 4]] * 20_000,
    }
    asked = {"picture": "a.png", "box_format": "xyxy"}
    found = [label_json({**asked, "boxes": value}, 400, f"boxes: {name}") for name, value in cases.items()]
    wide = {"picture": "a.png", "box_format": "xywh"}
    more: dict[str, Any] = {
        "too wide for a number": [[1e308, 1, 1e308, 5]],
        "of negative width": [[10, 10, -5, 5]],
        "no height": [[10, 10, 5, 0]],
    }
    found += [label_json({**wide, "boxes": value}, 400, f"boxes: {name}") for name, value in more.items()]
    text = '{"picture": "a.png", "box_format": "xyxy", "boxes": [[1, 2, 1e999, 4]]}'
    return [*found, label_json(text.encode(), 400, "boxes: a number of 999 digits")]


def wrong_tokens(token: str) -> list[Request]:
    """Requests to a server that wants a token, without the right one."""

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    shown: dict[str, dict[str, str]] = {
        "no token": {},
        "an empty token": {"Authorization": "Bearer "},
        "another token": {"Authorization": "Bearer " + "x" * len(token)},
        "the token but its end": {"Authorization": "Bearer " + token[:-1]},
        "the token and more": {"Authorization": "Bearer " + token + "x"},
        "the token in capitals": {"Authorization": "Bearer " + token.upper()},
        "the token without its kind": {"Authorization": token},
        "another kind": {"Authorization": "Digest " + token},
        "a wrong password": {"Authorization": basic("user:wrong")},
        "the token as the user's name": {"Authorization": basic(token + ":")},
        "a password that is not base64": {"Authorization": "Basic !!!"},
        "a token of 20 KB": {"Authorization": "Bearer " + "a" * 20_000},
        "a token that is no ASCII": {"Authorization": "Bearer \xe4\xff"},
        "a wrong cookie": {"Cookie": "mal_trt_token=wrong"},
        "a broken cookie": {"Cookie": '=;;"; mal_trt_token'},
        "the token under another cookie's name": {"Cookie": f"token={token}"},
    }
    found = [Request(name, http("GET", "/v1/models", headers=headers), (401,)) for name, headers in shown.items()]
    targets = (
        "/?token=wrong",
        "/?token=",
        "/?token=" + "a" * 5000,
        f"/v1/models?token={token}",
        "/?token=%00",
        "/metrics",
        "/",
    )
    return [*found, *(Request(f"GET {target[:30]}", http("GET", target), (400, 401)) for target in targets)]
