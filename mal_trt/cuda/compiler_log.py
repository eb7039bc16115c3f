"""What a compiler's log says first; the compilers themselves are `nvrtc` and `nvcc`."""

from __future__ import annotations


def first_error(log: str) -> str:
    """The first line of a compiler's log that says what is wrong."""
    lines = [" ".join(line.split()) for line in log.replace("\0", "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no reason given")
