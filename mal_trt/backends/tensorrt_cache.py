"""The kernels that TensorRT-RTX compiles for the GPU at hand, kept for the next start. A build's is `timing_cache`."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal_trt.backends.tensorrt_load import Loaded
from mal_trt.base.caches import cache_folder, keep


class RuntimeSettings:
    """TensorRT-RTX's settings for the execution contexts of one engine. graphs: let it use CUDA graphs of its own."""

    def __init__(self, loaded: Loaded, plan_sha256: str, gpu: str, graphs: bool) -> None:
        flavor = loaded.flavor
        self.config = loaded.engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(
            flavor.member("ExecutionContextAllocationStrategy", "ON_PROFILE_CHANGE")
        )
        # It knows when a kernel for the shape at hand has replaced a general one; a graph captured here would not.
        strategy = "WHOLE_GRAPH_CAPTURE" if graphs else "DISABLED"
        self.config.cuda_graph_strategy = flavor.member("CudaGraphStrategy", strategy)
        gpu = re.sub(r"[^a-z0-9.]+", "_", gpu.lower())
        self._path = cache_folder() / f"kernels-{flavor.name}-{flavor.version}-{gpu}-{plan_sha256[:16]}.bin"
        self._stored = _read(self._path)
        self._cache: Any = self.config.create_runtime_cache()
        if self._cache is not None:
            if self._stored:
                self._cache.deserialize(self._stored)  # refused if of another driver or GPU: then it compiles again
            self.config.set_runtime_cache(self._cache)
        loaded.messages.all.clear()  # nobody need know of a cache that does not fit

    def close(self) -> None:
        """Keep what was compiled. A cache that cannot be written costs time at the next start, no more."""
        cache, self._cache, self.config = self._cache, None, None
        content = cache.serialize() if cache is not None else None
        if content is not None and (compiled := bytes(content)) != self._stored:
            keep(self._path, compiled)


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
