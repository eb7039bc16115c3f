"""The kernels' sources under AddressSanitizer and UBSan: no read or write outside an allocation, none misaligned.

What `compute-sanitizer --tool memcheck` finds on a GPU, as far as it shows with one thread after the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ASTRAY = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from compiled_kernels import compile_file
from host_memory import HostMemory
source = Path(sys.argv[2], "astray.cu")
source.write_text('extern "C" __global__ void astray(float *x, int at) { x[at] = 1.0f; }')
memory = HostMemory()
pointer, block = memory.make(20)
run = compile_file(source, source.parent)["astray"]
one = (1, 1, 1)
run(one, one, memory, np.uint64(pointer), np.int32(4))
print("within", flush=True)
run(one, one, memory, np.uint64(pointer + int(sys.argv[3])), np.int32(int(sys.argv[4])))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    if shutil.which("g++") is None or sys.platform != "linux":
        pytest.skip("needs g++ on Linux")
    libraries = [
        subprocess.run(["g++", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True).stdout
        for name in ("asan", "ubsan")
    ]
    if not all("/" in name for name in libraries):
        pytest.skip("this g++ has no sanitizers")
    return {
        **os.environ,
        "KERNEL_FLAGS": "-g -fsanitize=address,undefined -fno-sanitize-recover=all",
        "LD_PRELOAD": ":".join(name.strip() for name in libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
    }


@pytest.mark.parametrize(
    ("offset", "at", "said"),
    [(0, 5, "use-after-poison"), (0, -1, "use-after-poison"), (2, 1, "misaligned address")],
)
def test_what_goes_astray_is_noticed(
    environment: dict[str, str], tmp_path: Path, offset: int, at: int, said: str
) -> None:
    command = [sys.executable, "-c", ASTRAY, str(HERE.parent / "doubles"), str(tmp_path), str(offset), str(at)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stdout == "within\n" and said in done.stderr, done.stderr


@pytest.mark.slow
def test_no_kernel_leaves_its_memory(environment: dict[str, str]) -> None:
    """All cases of test_kernels.py that run the sources, once more."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", "-k", "g++"]
    done = subprocess.run(
        [*command, str(HERE / "test_kernels.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr
