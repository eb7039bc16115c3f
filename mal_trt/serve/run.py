"""Runs the server until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from mal_trt.base.errors import InputError
from mal_trt.serve.app import create_app
from mal_trt.serve.protocol import timed_protocol
from mal_trt.serve.security import LARGEST_HEAD
from mal_trt.serve.settings import ServeSettings

BACKLOG = 1024


def serve(settings: ServeSettings, tell: Callable[[str], None] = lambda text: None) -> None:
    """Answer until SIGINT or SIGTERM; then take nothing new, finish what was accepted, and return.

    tell: is given each line for the user. InputError if the address, the model or the pictures cannot be used.
    """
    listening = listen(settings)
    try:
        server = server_of(settings)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = listening.getsockname()[1]
        tell(f"serving on http://{host}:{port}/" + (f"?token={settings.token}" if settings.token else ""))
        with suppress(KeyboardInterrupt):  # which uvicorn raises when all is answered
            server.run([listening])
    finally:
        listening.close()


def server_of(settings: ServeSettings) -> uvicorn.Server:
    """The server, with its model open, to be run with a socket that listens."""
    limits = settings.limits
    config = uvicorn.Config(
        create_app(settings),
        http=timed_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(limits.idle),
        timeout_graceful_shutdown=round(limits.stop),
        h11_max_incomplete_event_size=2 * LARGEST_HEAD,
    )
    return uvicorn.Server(config)


def listen(settings: ServeSettings) -> socket.socket:
    """A socket that listens, so that the user knows at once whether the address is free; InputError if it is not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # Named, the protocol makes asyncio send small answers at once; else the last piece waits 40 ms.
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host {settings.host}: no address of this machine ({error})") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(
            f"host {settings.host}, port {settings.port}: cannot listen there ({error.strerror}); choose another --port"
        ) from None
    return listening
