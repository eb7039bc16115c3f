"""Files that only save time: each may be missing, old or broken without harm. Results are `base.outputs`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mal_trt.base.errors import RunError
from mal_trt.base.outputs import write_whole


def cache_folder() -> Path:
    """mal-trt's folder among the user's caches; it may not exist yet."""
    root = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(root or Path.home() / ".cache") / "mal-trt"


def keep(path: Path, content: bytes) -> None:
    """Write a cache file whole or not at all; a disk that refuses is no error."""
    with suppress(OSError, RunError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
