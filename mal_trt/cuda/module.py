"""A file of kernels, compiled and loaded: its kernels are launched by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from mal_trt.cuda.driver import Driver, Grid

BLOCK = 128  # threads of a block of `launch_1d`


class Kernels:
    """The kernels of one file of mal_trt/cuda/kernels on one GPU. Every method needs `driver.current()` around it."""

    def __init__(self, driver: Driver, source: str) -> None:
        """source: the file's name, such as "crop.cu". RunError if it does not compile."""
        self._driver = driver
        self._module: Any = driver.load_module(driver.compile(source))
        self._functions: dict[str, Any] = {}

    def launch(self, name: str, grid: Grid, block: Grid, stream: int, *arguments: np.generic, shared: int = 0) -> None:
        """Queue a kernel. arguments: NumPy scalars of the parameters' own types; pointers as np.uint64."""
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._driver.function(self._module, name)
        self._driver.launch(function, grid, block, stream, arguments, shared)

    def launch_1d(self, name: str, threads: int, stream: int, *arguments: np.generic) -> None:
        """Queue a kernel with at least `threads` threads, 1 or more, along x; it ignores those beyond its data."""
        self.launch(name, (-(-threads // BLOCK), 1, 1), (BLOCK, 1, 1), stream, *arguments)

    def close(self) -> None:
        """Unload them; may be called twice. No queued work may use them."""
        module, self._module = self._module, None
        self._functions.clear()
        if module is not None:
            self._driver.unload_module(module)
