"""SIGTERM taken like Ctrl-C, so that a command that is ended removes the files it only needed meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwound_when_ended() -> Iterator[None]:
    """KeyboardInterrupt on SIGTERM, in this process and no child of it. Nothing happens outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == own:
            signal.signal(number, signal.SIG_IGN)  # a second one would stop the tidying up
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # of a child that was forked
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
