"""Files that only save time: each may be missing, old or broken without harm. Results are `base.files`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import get_ident


def cache_folder() -> Path:
    """mal-trt's folder among the user's caches; it may not exist yet."""
    root = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(root or Path.home() / ".cache") / "mal-trt"


def keep(path: Path, content: bytes) -> None:
    """Write a cache file whole or not at all; a disk that refuses is no error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
