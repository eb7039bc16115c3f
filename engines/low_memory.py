"""Building where memory is short, as on a small Jetson, whose system ends a program that asks for too much.

What `--low-memory` changes: profiles are built one at a time, the scratch memory is small, and TensorRT tries fewer
ways. What it costs: time, and perhaps a little speed of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mal_trt.base.memory import Memory
from mal_trt.engines.job import Job

# With TensorRT-RTX 1.7 the peak was 448 MiB for a model of 44 MB and 1550 MiB for one of 344 MB (ViT-Base).
LIBRARIES = 288 << 20
TIMES_MODEL = 4
SWAP = "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile"
DESKTOP = "sudo systemctl isolate multi-user.target"


def needed(model: Path, workspace: int | None) -> int:
    """Bytes that a build takes, roughly: libraries, copies of the weights, scratch memory."""
    return LIBRARIES + TIMES_MODEL * model.stat().st_size + (workspace or 0)


def advice(job: Job, memory: Memory) -> Iterator[str]:
    """What to know before a build begins, and what to do where memory will hardly do; () where it is not known."""
    if memory.available is None:
        return
    wanted, swap = needed(job.onnx, job.workspace), memory.swap_free or 0
    yield f"memory: {_gib(memory.available)} free and {_gib(swap)} of swap; the build takes about {_gib(wanted)}"
    if wanted <= memory.available:
        return
    yield f"that is more than is free: close other programs, the desktop too ({DESKTOP}), or use a smaller --batch"
    if wanted > memory.available + swap:
        yield f"swap lets the system move other programs out: {SWAP}"


def one_at_a_time(job: Job) -> Iterator[Job]:
    """Builds to be done before the job itself, each of one profile. What TensorRT measures in them it keeps in the
    timing cache, so the job itself measures nothing, and a build that was killed goes on where it was. None for
    TensorRT-RTX, which measures nothing while it builds, nor for a single profile."""
    if job.low_memory and job.timing_cache is not None and len(job.profiles) > 1:
        for profile in job.profiles:
            yield replace(job, profiles=(profile,))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
