"""HTTP/1.1 connections that do not wait for clients for ever, on top of uvicorn's."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mal_trt.serve.security import RAW_HEADERS
from mal_trt.serve.settings import Limits

HEAD = b"content-type: application/json\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in RAW_HEADERS)
TOO_SLOW = b'{"error":"the request did not arrive in time"}'


def timed_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol with these limits on how slow a client may be."""

    class TimedProtocol(H11Protocol):
        """Closes a connection whose head, body or reading takes too long; answers one that was closed for writing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._reading: asyncio.TimerHandle | None = None
            self._phase = ""
            self._stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def eof_received(self) -> bool:  # type: ignore[override]
            # A client may close its side once all is sent, and still wants its answer.
            cycle = self.cycle
            return cycle is not None and not cycle.more_body and not cycle.response_complete

        def connection_lost(self, exc: Exception | None) -> None:
            self._arm("")
            self._go_on()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._go_on()
            self._stalled = self.loop.call_later(limits.stalled, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._go_on()

        def send_400_response(self, msg: str) -> None:
            body = b'{"error":"not an HTTP/1.1 request, or its head is too large"}'
            self._answer(b"400 Bad Request", body)
            self.transport.close()

        def _watch(self) -> None:
            """Set the clock for what is now expected of the client."""
            theirs = self.conn.their_state
            if theirs is h11.SEND_BODY:
                self._arm("body")
            elif theirs is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
                self._arm("head")
            else:  # it is our turn, or uvicorn's own clock runs until the next request
                self._arm("")

        def _arm(self, phase: str) -> None:
            if phase == self._phase:
                return
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None
            self._phase = phase
            if phase:
                seconds = limits.head if phase == "head" else limits.body_seconds
                self._reading = self.loop.call_later(seconds, self._too_slow)

        def _too_slow(self) -> None:
            if self.transport.is_closing():
                return
            cycle = self.cycle
            if cycle is None or cycle.response_complete:
                self._answer(b"408 Request Timeout", TOO_SLOW)
            self.transport.close()

        def _answer(self, status: bytes, body: bytes) -> None:
            """An answer of our own, to what did not become a request."""
            head = b"HTTP/1.1 %b\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, HEAD, len(body)) + body)

        def _go_on(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

    return TimedProtocol
