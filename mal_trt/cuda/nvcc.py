"""nvcc, the compiler of the CUDA toolkit: for JetPack and wherever NVRTC is not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from mal_trt.base.errors import RunError
from mal_trt.cuda.compiler_log import first_error

SECONDS = 300  # for one file
USUAL = "/usr/local/cuda/bin/nvcc"  # JetPack's toolkit is not in PATH


def find_nvcc() -> Nvcc | None:
    """nvcc from PATH, CUDA_HOME, CUDA_PATH or its usual place; None if it is nowhere or does not answer."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for place in ("nvcc", *(str(Path(home, "bin", "nvcc")) for home in homes), USUAL):
        if found := shutil.which(place):
            try:
                return Nvcc(found)
            except RunError:
                continue
    return None


class Nvcc:
    """See mal_trt.cuda.compile.Compiler. RunError if it does not say its version."""

    def __init__(self, program: str) -> None:
        self._program = program
        version = re.search(r"release [\d.]+, V([\d.]+)", self._run("--version").stdout)
        if version is None:
            raise RunError(f"{program}: does not say its version")
        self.title = f"nvcc {version[1]}"
        self.major = int(version[1].split(".")[0])

    def architectures(self) -> list[int]:
        listed = self._run("--list-gpu-code").stdout
        return sorted({int(number) for number in re.findall(r"^sm_(\d+)$", listed, re.MULTILINE)})

    def compile(self, path: Path, target: str, flags: tuple[str, ...]) -> bytes:
        kind = "--cubin" if target.startswith("sm_") else "--ptx"
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "image")
            done = self._run(kind, *flags, f"--gpu-architecture={target}", "-o", str(out), str(path))
            if done.returncode:
                reason = first_error(done.stderr or done.stdout)
                raise RunError(f"{path.name} does not compile with {self.title} for {target}: {reason}")
            return out.read_bytes()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{self._program} does not run ({error})") from None
