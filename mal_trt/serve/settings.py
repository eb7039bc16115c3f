"""What a server is started with, and the limits that it keeps."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mal_trt.backends.choice import AUTO
from mal_trt.base.errors import InputError
from mal_trt.labelling.predictor import Threshold

SHORTEST_TOKEN = 16
WORKSPACE = Path("mal-trt-workspace")


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may ask for.

    body: bytes of a request. pixels: of one picture, as its header says before it is decoded. boxes: of one request.
    queue: boxes waiting for the network. held_pixels: of the pictures whose boxes wait. held_bodies: bytes of all
    requests that are being read or answered. requests: being answered at once. wait: seconds that a box waits for
    others while some are known to come. seconds: for one answer. head, body_seconds, idle: seconds in which a client
    must send the head of a request, its body, the next request. stalled: seconds that an answer waits for a client
    that does not read. stop: seconds that accepted requests have to finish when the server is stopped.
    """

    body: int = 64 << 20
    pixels: int = 1 << 26
    boxes: int = 1000
    queue: int = 4096
    held_pixels: int = 1 << 27
    held_bodies: int = 512 << 20
    requests: int = 512
    wait: float = 0.005
    seconds: float = 120.0
    head: float = 10.0
    body_seconds: float = 60.0
    idle: float = 15.0
    stalled: float = 30.0
    stop: float = 60.0

    def __post_init__(self) -> None:
        if self.boxes > self.queue:
            raise InputError(f"{self.boxes} boxes a request, but a queue of {self.queue}; a request must fit the queue")


@dataclass(frozen=True)
class ServeSettings:
    """A server's settings, the words of the options of `mal-trt serve`.

    - `model`, `device`, `backend`, `batch`, `crops`, `threshold`, `flip`, `refine`, `weights`, `slack`,
      `second_pass`, `threads`: as for `Labeler`; another threshold of a request changes the second mask alone, within
      its narrower box. Several devices with commas between run a copy of the model each.
    - `images`: the pictures that may be asked for by name: a folder, a .tar, one file, or a URL of these; None: none.
    - `boxes`: the boxes that the page begins with, in any format that is read; `boxes_format`, `split` as for `Boxes`.
    - `workspace`: the folder that the page's work is kept in, the only one that is written to.
    - `label_studio`, `label_studio_key`: address and access token of the Label Studio that has the pictures of tasks.
    - `token`: what clients must show; None: nothing, which only a loopback address may do.
    """

    model: str | Path = "bundled"
    images: str | Path | None = None
    boxes: str | Path | None = None
    boxes_format: str | None = None
    split: str | None = None
    workspace: Path = WORKSPACE
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    label_studio: str | None = None
    label_studio_key: str | None = None
    device: str = "auto"
    backend: str = AUTO
    batch: int | None = None
    crops: str = "auto"
    threshold: Threshold = None
    flip: bool = False
    refine: str | None = None
    weights: str | None = None
    slack: float = 0.0
    second_pass: bool = False
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise InputError(f"token: expected at least {SHORTEST_TOKEN} ASCII characters, so that nobody guesses it")
        if self.token is not None and not self.token.isprintable():
            raise InputError("token: holds characters that cannot be printed")
        if self.label_studio is not None:
            origin_of(self.label_studio, "Label Studio")
        if self.token is None and not is_loopback(self.host):
            raise InputError(f"host {self.host}: others can reach it, so clients must show a token; give --token")


def origin_of(address: str, what: str) -> tuple[str, str, int]:
    """Scheme, host and port of an http(s) address; InputError if it is none."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if not port or not parts.hostname or parts.username is not None:
        raise InputError(f"{address[:80]}: not the address of {what}; expected such as http://localhost:8080")
    return parts.scheme, parts.hostname, port


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, reached from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
