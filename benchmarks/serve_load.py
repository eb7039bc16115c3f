"""What `mal-trt serve` costs beside the Python API, and how it bears many clients; all on this machine, 127.0.0.1.

    python benchmarks/serve_load.py start|single|load|memory [--images DIR|TAR --boxes boxes.json] [--json FILE]

start: seconds from the command to the first answer of /readyz. single: one box of one picture, over HTTP on a
connection that is kept, in turn with the same call of `Labeler` on the same file's bytes, decoded anew; medians.
load: `--clients` ask for `--seconds`, each the boxes of one picture after the other, against `label` on the same
pictures and boxes before and after; every answer is compared with `Labeler`'s. memory: resident memory of the server
while `--requests` of one box each are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import save

from mal_trt import Labeler
from mal_trt.formats.boxes import read_boxes
from mal_trt.formats.images import ImageSource, open_images, read_picture
from mal_trt.labelling.run import label

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass
class Asked:
    """A request: its bytes, its boxes, and the answer's masks as `Labeler` gives them."""

    raw: bytes
    boxes: int
    expected: list[Any]
    answer: bytes = b""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(*options: str) -> Any:
    """A server process; its port, its pid, and the seconds until it was ready."""
    port = free_port()
    command = [sys.executable, "-m", "mal_trt.cli", "serve", "--port", str(port), "--device", "cpu", *options]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                break
            if process.poll() is not None or time.perf_counter() - began > 180:
                raise SystemExit("error: the server did not start")
            time.sleep(0.005)
        yield port, process.pid, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def request(content: bytes, boxes: list[list[float]]) -> bytes:
    parts = [("boxes", "", json.dumps(boxes).encode()), ("box_format", "", b"xywh"), ("image", "; filename=a", content)]
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"
        for name, more, value in parts
    )
    body += b"--x--\r\n"
    head = "POST /v1/label HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def requests(source: ImageSource, document: dict[str, Any], boxes: int, labeler: Labeler | None) -> list[Asked]:
    """A request for each picture, until they have so many boxes."""
    by_picture: dict[Any, list[list[float]]] = {}
    for record in document["annotations"]:
        by_picture.setdefault(record["image_id"], []).append(record["bbox"])
    found: list[Asked] = []
    for image in document["images"]:
        own = by_picture.get(image["id"], [])
        if own and sum(one.boxes for one in found) < boxes:
            content = source.read(image["file_name"])
            pixels = read_picture(io.BytesIO(content))
            expected = labeler(pixels, own, "xywh").rle if labeler else []
            found.append(Asked(request(content, own), len(own), expected))
    return found


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes) -> tuple[int, bytes]:
    writer.write(raw)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r", 1)[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    seconds = []
    for _ in range(arguments.rounds):
        with running() as (_, _, taken):
            seconds.append(round(taken, 3))
    return {"seconds": seconds, "median": median(seconds)}


def single(arguments: argparse.Namespace) -> dict[str, Any]:
    source, document = data(arguments)
    first = next(r for r in document["annotations"] if r["bbox"][2] * r["bbox"][3] > 96**2)
    image = next(image for image in document["images"] if image["id"] == first["image_id"])
    content, boxes = source.read(image["file_name"]), [first["bbox"]]
    raw = request(content, boxes)

    async def measure(port: int) -> tuple[list[float], list[float]]:
        over, bare = [], []
        with Labeler(device="cpu") as labeler:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(arguments.rounds * 20 + 10):
                began = time.perf_counter()
                expected = labeler(read_picture(io.BytesIO(content)), boxes, "xywh").rle
                middle = time.perf_counter()
                status, body = await ask(reader, writer, raw)
                ended = time.perf_counter()
                if status != 200 or [m["segmentation"] for m in json.loads(body)["masks"]] != expected:
                    raise SystemExit("error: the answer is not Labeler's")
                if number >= 10:  # the first ones warm up
                    bare.append(middle - began)
                    over.append(ended - middle)
            writer.close()
        return over, bare

    with running() as (port, _, _):
        over, bare = asyncio.run(measure(port))
    return {
        "picture": f"{image['width']}x{image['height']}",
        "pairs": len(over),
        "http_p50_ms": round(median(over) * 1e3, 2),
        "bare_p50_ms": round(median(bare) * 1e3, 2),
        "ratio": round(median(over) / median(bare), 3),
    }


def load(arguments: argparse.Namespace) -> dict[str, Any]:
    source, document = data(arguments)
    with Labeler(device="cpu") as labeler:
        asked = requests(source, document, arguments.count, labeler)
    rates = [labelled(arguments, document, len(asked))]
    counts: Counter[str] = Counter()
    latencies: list[float] = []

    async def client(port: int, number: int, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number * 7
        while time.perf_counter() < until:
            one = asked[turn % len(asked)]
            turn += 1
            counts["requests"] += 1
            began = time.perf_counter()
            status, body = await ask(reader, writer, one.raw)
            latencies.append(time.perf_counter() - began)
            counts[str(status)] += 1
            if status == 200:
                counts["boxes"] += one.boxes
                if not one.answer and [m["segmentation"] for m in json.loads(body)["masks"]] == one.expected:
                    one.answer = body
                counts["right" if body == one.answer else "wrong"] += 1
            elif status == 503:
                await asyncio.sleep(0.2)
        writer.write_eof()
        counts["left over"] += len(await reader.read())  # an answer that nobody asked for
        writer.close()

    async def all_clients(port: int) -> float:
        began = time.perf_counter()
        until = began + arguments.seconds
        await asyncio.gather(*(client(port, number, until) for number in range(arguments.clients)))
        return time.perf_counter() - began

    with running(*(["--threads", str(arguments.threads)] if arguments.threads else [])) as (port, _, _):
        seconds = asyncio.run(all_clients(port))
    rates.append(labelled(arguments, document, len(asked)))
    rate = counts["boxes"] / seconds
    return {
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        **dict(counts),
        "boxes_per_s": round(rate, 1),
        "label_boxes_per_s": [round(one, 1) for one in rates],
        "share_of_label": round(rate / (sum(rates) / len(rates)), 3),
        "p50_ms": round(median(latencies) * 1e3, 1),
    }


def labelled(arguments: argparse.Namespace, document: dict[str, Any], pictures: int) -> float:
    """Boxes/s of `label` on the same pictures and boxes, from files to the output file, the model's start left out."""
    with_boxes = {record["image_id"] for record in document["annotations"]}
    images = [image for image in document["images"] if image["id"] in with_boxes][:pictures]
    chosen = {image["id"] for image in images}
    records = [record for record in document["annotations"] if record["image_id"] in chosen]
    with tempfile.TemporaryDirectory() as scratch:
        some = Path(scratch) / "boxes.json"
        some.write_text(json.dumps({**document, "images": images, "annotations": records}))
        summary = label(arguments.images, some, out=Path(scratch) / "out.json", device="cpu", progress=False)
    return summary.boxes_per_second


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    source, document = data(arguments)
    files = {image["id"]: source.read(image["file_name"]) for image in document["images"]}
    raw = [request(files[record["image_id"]], [record["bbox"]]) for record in document["annotations"]]
    kilobytes = []

    async def client(port: int, share: range) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in share:
            status, _ = await ask(reader, writer, raw[number % len(raw)])
            if status != 200:
                raise SystemExit(f"error: {status}")
        writer.close()

    async def some(port: int, first: int, last: int) -> None:
        await asyncio.gather(*(client(port, range(first + lane, last, 8)) for lane in range(8)))

    with running() as (port, pid, _):
        step = arguments.requests // 10
        for first in range(0, arguments.requests, step):
            asyncio.run(some(port, first, first + step))
            status = Path(f"/proc/{pid}/status").read_text()
            kilobytes.append(int(status.partition("VmRSS:")[2].split()[0]))
    return {"requests": arguments.requests, "resident_mb": [round(k * 1024 / 1e6, 1) for k in kilobytes]}


def data(arguments: argparse.Namespace) -> tuple[ImageSource, dict[str, Any]]:
    source = open_images(arguments.images)
    return source, read_boxes(arguments.boxes, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["start", "single", "load", "memory"])
    parser.add_argument("--images", type=Path, default=EXAMPLES / "photos")
    parser.add_argument("--boxes", type=Path, default=EXAMPLES / "boxes.json")
    parser.add_argument("--count", type=int, default=500, help="different boxes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, help="of the server under load; default: every core")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {"start": start, "single": single, "load": load, "memory": memory}[arguments.part](arguments)
    print(json.dumps(result, indent=2))
    save(arguments.json, {"part": arguments.part, **result})


if __name__ == "__main__":
    main()
