"""Work inside TensorRT beside the main thread, which stays free to hear Ctrl-C, and SIGTERM where that is taken alike.

A KeyboardInterrupt raised in a callback, such as the logger's, would pass through TensorRT's own code and crash it;
Python raises it in the main thread alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from typing import TypeVar

from mal_trt.artifacts.trtmessages import explain
from mal_trt.base.errors import MalTrtError, RunError
from mal_trt.base.signals import handled

T = TypeVar("T")


def run_beside(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """Result of `work`, done in another thread; what it raises is raised here.

    stop: called on Ctrl-C; `work` is then waited for and KeyboardInterrupt raised. A second Ctrl-C ends the process.
    SIGTERM does the same where something of Python handles it already (`base.signals`), but for the second.
    """
    results: list[T] = []
    failures: list[Exception] = []
    done = Event()  # rather than Thread.join, which takes an interrupted thread for ended

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # handed to the caller's thread
            failures.append(error)
        finally:
            done.set()

    with _on_interrupt(stop) as interrupted:
        thread = Thread(target=run, name="TensorRT", daemon=True)
        thread.start()
        while not done.wait(0.2):
            pass
        thread.join()
    if interrupted.is_set():
        raise KeyboardInterrupt
    if failures and isinstance(failures[0], MalTrtError):
        raise failures[0]
    if failures:
        raise RunError(f"TensorRT failed: {explain([str(failures[0])])}") from failures[0]
    return results[0]


@contextmanager
def _on_interrupt(stop: Callable[[], None]) -> Iterator[Event]:
    """A signal to end calls `stop` and sets the event instead of raising wherever the main thread happens to be."""
    interrupted = Event()

    def handle(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
        interrupted.set()
        stop()

    if current_thread() is not main_thread():  # which alone hears signals
        yield interrupted
        return
    taken = [signal.SIGINT, *([signal.SIGTERM] if callable(signal.getsignal(signal.SIGTERM)) else [])]
    with handled(taken, handle):
        yield interrupted
