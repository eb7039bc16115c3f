"""The processor: how many of its cores are ours, and which short numbers it multiplies by itself."""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Multiplied by the processor itself, not put together of FP32 by a library: word of /proc/cpuinfo -> type.
WORDS = {"avx512_bf16": "bf16", "amx_bf16": "bf16", "asimdhp": "fp16"}
EIGHT_BITS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_half() -> str | None:
    """`bf16` (x86 with AVX512-BF16 or AMX), `fp16` (ARM), or None: neither, or the system does not say."""
    words = _words()
    return next((half for word, half in WORDS.items() if word in words), None)


def native_int8() -> bool:
    """Whether it adds up products of eight-bit numbers without overflow (x86 with VNNI or AMX), as far as known."""
    return not EIGHT_BITS.isdisjoint(_words())


def _words() -> set[str]:
    """What the processor can do, in the words of /proc/cpuinfo."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    pairs = (line.partition(":") for line in lines)
    return {word for name, _, value in pairs if name.strip() in ("flags", "Features") for word in value.split()}
