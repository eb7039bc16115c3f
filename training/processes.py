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

import torch
from lightning_fabric import Fabric
from torch.distributed import distributed_c10d
from torch.utils.data._utils import signal_handling

from mal_trt.base.errors import MalTrtError, RunError, one_line

OBSERVER = "child-process-observer"  # Lightning's thread, which kills the first process, without a word, for another
REASON = "mal_trt/reason"  # in the store that all processes share: why one of them ended
GRACE = 20.0  # seconds in which the first process finds out for itself that another has ended
KEPT = "what last.pth in --out holds is kept, go on with --resume"
CUTTING = re.compile(r"DataLoader worker \(pid")  # how PyTorch begins to say that one has ended
SHARED = "</torch_"  # in the names of pieces of shared memory, which it could not get
FROM_CUTTING = re.compile(r"Caught \w+ in DataLoader worker")  # and to repeat what one raised, with its traceback
FULL = "DefaultCPUAllocator"  # which speaks only where there is no memory left
LOST = ("gloo/transport", "NCCL")  # of what it says where the others cannot be reached


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """All of a run in its processes, launched already: the first one speaks for all, whichever fails.

    RunError, in the first process, where another or one that cuts crops has ended; all end then.
    """
    others = Others(_taken_over())
    first = fabric.global_rank == 0
    try:
        with _plain_errors():
            yield
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
        if not first:  # which says why, if it still can
            sys.exit(1)
        raise RunError(_reason() or f"{others.ended()}; {KEPT}") from None
    finally:
        others.watched = False
        _let_cutting_end()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Others:
    """The processes that the first one started. Should one fail and the first one not notice, as where it waits for it
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
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or FULL in str(error):
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
    return text.splitlines()[-1].partition(": ")[2] if FROM_CUTTING.match(text) else one_line(error)


def _let_cutting_end() -> None:
    """PyTorch no longer raises an error, wherever this process is, for one that cuts crops and ends now. It listens
    again in the next run."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    if getattr(signal.getsignal(signal.SIGCHLD), "__module__", None) == signal_handling.__name__:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal_handling._SIGCHLD_handler_set = False


def _leave(reason: str) -> None:
    """Why this process ends, for the first one."""
    with suppress(Exception):  # it may have ended itself
        distributed_c10d._get_default_store().set(REASON, reason)


def _reason() -> str:
    """What another process left."""
    with suppress(Exception):
        store = distributed_c10d._get_default_store()
        if store.check([REASON]):
            return store.get(REASON).decode()
    return ""
