"""The processes of one run, those that cut crops included: what is said, by whom, when one of them ends early."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.distributed import distributed_c10d
from torch.utils.data._utils import signal_handling

from mal_trt.base.errors import MalTrtError, RunError, one_line

OBSERVER = "child-process-observer"  # Lightning's thread, which kills the first process, silently, when another fails
# In the store that all processes share: why one of them ended, and what one of them had to say of a lost connection.
REASON, LOST_REASON = "mal_trt/reason", "mal_trt/lost"
GRACE = 20.0  # seconds in which the first process finds out for itself that another has ended
PATIENCE = 5.0  # seconds in which the others may end by themselves where the first has failed
KEPT = "go on with --resume: what last.pth in --out holds, if it is there, is kept"
# How PyTorch begins to say that a process which cuts crops has ended, and to repeat what one raised.
CUTTING = re.compile(r"DataLoader worker \(pid")
FROM_CUTTING = re.compile(r"Caught \w+ in DataLoader worker")
NO_ROOM = "Caught MemoryError"
SHARED = "</torch_"  # in the names of pieces of shared memory, which it could not get
FULL = "DefaultCPUAllocator"  # which speaks only where there is no memory left
LOST = ("gloo/transport", "NCCL")  # of what it says where the others cannot be reached
GONE = ("closed by peer", "reset by peer")  # and where that is because another has ended


@contextmanager
def together(fabric: Fabric) -> Iterator[Others]:
    """All of a run in its processes, launched already: the first one speaks for all, whichever fails. Gives those that
    this one started.

    RunError, in the first process, where another or one that cuts crops has ended; all end then.
    """
    others = Others(_taken_over())
    first, failed = fabric.global_rank == 0, True
    heard = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    try:
        with _plain_errors():
            yield others
        failed = False
    except MalTrtError as error:
        if first:
            raise
        _leave(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if first:
            raise
        sys.exit(130)
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or any(name in str(error) for name in LOST)):
            raise
        said = one_line(error)
        if not first:  # which says why, if it still can
            if not any(gone in said for gone in GONE):
                _leave(said, LOST_REASON)
            sys.exit(1)
        raise RunError(_reason() or f"{others.ended()} ({said}); {KEPT}") from error
    finally:
        _let_cutting_end(heard)
        if failed:
            others.end()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        others.watched = False


class Others:
    """The processes that the first one started. Should one fail and the first one not notice, as when it waits for it
    on a GPU, all are ended."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.processes, self.watched = processes, True
        if processes:
            threading.Thread(target=self._watch, daemon=True).start()

    def ended(self) -> str:
        """Which one has failed, in words."""
        until = time.monotonic() + 2
        while time.monotonic() < until and self.processes:
            for rank, process in enumerate(self.processes, 1):
                if process.poll():
                    code = process.returncode
                    return f"process {rank} of the run ended with exit code {code} (out of memory, or killed?)"
            time.sleep(0.05)
        return "another process of the run ended"

    def end(self) -> None:
        """See that none goes on: some wait for this one on a GPU, for ever."""
        until = time.monotonic() + PATIENCE
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
                continue
            process.kill()

    def _watch(self) -> None:
        while self.watched and not any(process.poll() for process in self.processes):
            time.sleep(1)
        until = time.monotonic() + GRACE
        while self.watched and time.monotonic() < until:
            time.sleep(0.2)
        if self.watched:
            print(f"error: {_reason() or f'{self.ended()}; {KEPT}'}", file=sys.stderr, flush=True)
            for process in self.processes:
                process.kill()
            os._exit(1)


def _taken_over() -> Sequence[subprocess.Popen[bytes]]:
    """The other processes on this machine, which Lightning's observer then leaves alone."""
    for thread in threading.enumerate():
        if thread.name == OBSERVER and hasattr(thread, "_child_processes"):
            processes: Sequence[subprocess.Popen[bytes]] = thread._child_processes
            thread._child_processes = []
            return processes
    return ()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What goes wrong in a process that cuts crops, as if it were said here."""
    try:
        yield
    except MalTrtError as error:
        if FROM_CUTTING.match(str(error)):
            raise type(error)(_last_line(error)) from None
        raise
    except (RuntimeError, MemoryError) as error:
        full = FULL in str(error) or str(error).startswith(NO_ROOM)
        if full or isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            raise RunError(
                f"out of memory ({_last_line(error)}); lower --batch and raise --accumulate, or lower --crop-size"
            ) from None
        if not CUTTING.match(str(error)) and SHARED not in str(error):
            raise
        raise RunError(
            f"a process that cuts crops ended early ({_last_line(error)}): out of memory, or of shared memory in a "
            f"container (docker run --shm-size)? {KEPT}, with fewer --workers or none"
        ) from None


def _last_line(error: BaseException) -> str:
    """What an error says, without the traceback that PyTorch puts into it and the name of its type."""
    text = str(error).strip()
    if not FROM_CUTTING.match(text):
        return one_line(error)
    last = text.splitlines()[-1]
    return last.partition(": ")[2] or last


def _let_cutting_end(heard: Any) -> None:
    """PyTorch no longer raises an error, wherever this process is, for one that cuts crops and ends now. It listens
    again in the next run. heard: the handler of SIGCHLD before this one."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    if getattr(signal.getsignal(signal.SIGCHLD), "__module__", None) == signal_handling.__name__:
        ours = heard is None or getattr(heard, "__module__", None) == signal_handling.__name__
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if ours else heard)
        signal_handling._SIGCHLD_handler_set = False


def _leave(reason: str, key: str = REASON) -> None:
    """Why this process ends, for the first one."""
    with suppress(Exception):  # it may have ended itself
        distributed_c10d._get_default_store().set(key, reason)


def _reason() -> str:
    """What another process left; what it knew itself before what it lost."""
    with suppress(Exception):
        store = distributed_c10d._get_default_store()
        for key in (REASON, LOST_REASON):
            if store.check([key]):
                return store.get(key).decode()
    return ""
