"""SIGTERM taken like Ctrl-C, so that a command that is ended removes the files it only needed meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 5.0  # seconds in which another SIGTERM would only disturb the tidying up


class Ending:
    """asked: whether SIGTERM or Ctrl-C has come. Libraries turn the KeyboardInterrupt into errors of their own."""

    asked = False


@contextmanager
def unwound_when_ended() -> Iterator[Ending]:
    """KeyboardInterrupt on SIGTERM, in this process and no child of it. Nothing happens outside the main thread."""
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    own, heard = os.getpid(), 0.0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal heard
        if number == signal.SIGTERM:
            if os.getpid() != own:  # a child that was forked
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            last, heard = heard, time.monotonic()
            if last and heard - last < PATIENCE:
                return
        ending.asked = True
        raise KeyboardInterrupt

    taken = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in a job behind nohup
        taken.append(signal.SIGINT)
    with handled(taken, stop):
        yield ending


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals go to a function meanwhile; only in the main thread, which alone hears them."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
