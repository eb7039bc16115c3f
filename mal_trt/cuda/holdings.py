"""What a driver made and has not freed yet, so that it can be counted, and freed at the end whatever happened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mal_trt.cuda.driver import CudaError

# In the order in which `release_all` frees them: users before what they use.
KINDS = ("graph", "stream", "event", "module", "pinned", "memory")


class Holdings:
    """Things by kind and handle, each with a function that frees it (which must not refer to the driver)."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Any, tuple[Any, Callable[[], None]]]] = {kind: {} for kind in KINDS}

    def add(self, kind: str, handle: Any, release: Callable[[], None], thing: Any = None) -> None:
        self._held[kind][handle] = (thing, release)

    def get(self, kind: str, handle: Any) -> Any:
        """The thing behind a handle; CudaError if it was freed."""
        try:
            return self._held[kind][handle][0]
        except KeyError:
            raise CudaError(f"using {kind} {handle}", "CUDA_ERROR_INVALID_HANDLE") from None

    def handles(self, kind: str) -> list[Any]:
        return list(self._held[kind])

    def release(self, kind: str, handle: Any) -> None:
        """Free one; CudaError if that was done before, or fails."""
        held = self._held[kind].pop(handle, None)
        if held is None:
            raise CudaError(f"releasing {kind} {handle}", "CUDA_ERROR_INVALID_HANDLE")
        held[1]()

    def counts(self) -> dict[str, int]:
        return {kind: len(held) for kind, held in self._held.items()}

    def release_all(self) -> None:
        """Free the rest. Errors are passed over: once the GPU has failed every such call does, and all goes with the
        process."""
        for held in self._held.values():
            while held:
                _, (_, release) = held.popitem()
                with suppress(CudaError):
                    release()
