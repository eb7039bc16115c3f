"""Timing cache: what TensorRT measured for one build, kept for the next on the same GPU with the same version."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal_trt.artifacts.flavor import Flavor
from mal_trt.base.caches import cache_folder, keep
from mal_trt.base.gpu import Gpu


def default_path(flavor: Flavor, gpu: Gpu) -> Path:
    """Where the cache of a TensorRT version and a GPU lies, in the user's folder for caches."""
    parts = (flavor.name, flavor.version, gpu.name, gpu.compute_capability)
    name = "-".join(re.sub(r"[^a-z0-9.]+", "_", part.lower()) for part in parts)
    return cache_folder() / f"timing-{name}.bin"


def attach(config: Any, path: Path) -> bool:
    """Give a builder configuration the cache of a file; an empty one if there is none that fits. True if it fits."""
    stored = b""
    with suppress(OSError):
        stored = path.read_bytes()
    for content in (stored, b""):
        cache = config.create_timing_cache(content)
        # False: a cache of another GPU or version is not taken rather than trusted.
        if cache is not None and config.set_timing_cache(cache, False):
            return bool(content)
    return False


def store(config: Any, path: Path) -> None:
    """Keep what the build measured. A cache that cannot be written costs time at the next build, no more."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    keep(path, bytes(cache.serialize()))
