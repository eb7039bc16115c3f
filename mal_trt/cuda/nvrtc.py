"""NVRTC, NVIDIA's compiler as a library, by cuda-bindings. Needs no GPU and no driver."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from mal_trt.base.errors import RunError
from mal_trt.cuda.compiler_log import first_error

MODULE = "cuda.bindings.nvrtc"
# All of cuda.bindings.nvrtc that is used; the tests look each of them up.
FUNCTIONS = (
    "nvrtcVersion",
    "nvrtcGetSupportedArchs",
    "nvrtcCreateProgram",
    "nvrtcDestroyProgram",
    "nvrtcCompileProgram",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
    "nvrtcGetPTXSize",
    "nvrtcGetPTX",
)


def open_nvrtc() -> Nvrtc | None:
    """NVRTC if cuda-bindings and its library are installed."""
    try:
        return Nvrtc(import_module(MODULE))
    except (ImportError, OSError, RuntimeError):  # bindings load the library at their first call
        return None


class Nvrtc:
    """See mal_trt.cuda.compile.Compiler. RuntimeError if the library cannot be loaded."""

    def __init__(self, module: Any) -> None:
        self._nvrtc = module
        self.major: int
        self.major, minor = self._check(module.nvrtcVersion())
        self.title = f"NVRTC {self.major}.{minor}"

    def architectures(self) -> list[int]:
        return sorted(self._check(self._nvrtc.nvrtcGetSupportedArchs()))

    def compile(self, path: Path, target: str, flags: tuple[str, ...]) -> bytes:
        nvrtc = self._nvrtc
        options = [*flags, f"--gpu-architecture={target}", f"--include-path={path.parent}"]
        program = self._check(nvrtc.nvrtcCreateProgram(path.read_bytes(), path.name.encode(), 0, [], []))
        try:
            code = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
            if int(code):
                log = self._text(program, "ProgramLog").decode(errors="replace")
                raise RunError(f"{path.name} does not compile with {self.title} for {target}: {first_error(log)}")
            return self._text(program, "CUBIN" if target.startswith("sm_") else "PTX")
        finally:
            nvrtc.nvrtcDestroyProgram(program)

    def _text(self, program: Any, what: str) -> bytes:
        size = self._check(getattr(self._nvrtc, f"nvrtcGet{what}Size")(program))
        buffer = bytearray(size)
        self._check(getattr(self._nvrtc, f"nvrtcGet{what}")(program, buffer))
        return bytes(buffer)

    def _check(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        if int(code):
            raise RunError(f"NVRTC failed with {getattr(code, 'name', int(code))}")
        return values[0] if len(values) == 1 else values
