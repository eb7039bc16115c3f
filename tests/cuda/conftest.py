"""Drivers that run here: the real bindings over libcuda.c, a stand-in for NVIDIA's driver library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOUBLES = Path(__file__).parents[1] / "doubles"
BEGIN = """
import ctypes, gc, json, threading, time
import numpy as np
from mal_trt.cuda.driver import CudaError
from mal_trt.cuda.open import open_driver
library = ctypes.CDLL("libcuda.so.1")
KINDS = ("memory", "pinned", "stream", "event", "module", "graph")
def living():
    return {kind: library.fake_living(number) for number, kind in enumerate(KINDS)}
def error(call, *arguments):
    try:
        call(*arguments)
    except CudaError as caught:
        return str(caught)
def show(value):
    print(json.dumps(value), flush=True)
"""

Run = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the stand-in's libcuda.so.1."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs gcc on Linux to compile the stand-in driver")
    folder = tmp_path_factory.mktemp("libcuda")
    library = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(DOUBLES / "libcuda.c"), "-ldl"]
    subprocess.run(library, check=True)
    return folder


@pytest.fixture
def run(libcuda: Path) -> Run:
    """Runs code in a process of its own whose driver is the stand-in; returns what it showed, by `show`.

    provider: sets MAL_TRT_CUDA; pycuda is the double of that package.
    """

    def call(code: str, provider: str = "cuda-python") -> list[Any]:
        if provider == "cuda-python":
            pytest.importorskip("cuda.bindings")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libcuda), "MAL_TRT_CUDA": provider}
        if provider == "pycuda":
            environment["PYTHONPATH"] = str(DOUBLES / "pycuda_double")
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return call
