"""A checkpoint given for a model: exported once into the user's cache, and found there from then on.

What is in the cache already needs no PyTorch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.base.caches import cache_folder
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.version import __version__

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".tlt", ".etlt")


@dataclass(frozen=True)
class Choice:
    """What can be chosen of a checkpoint's export; fields and defaults are those of `export_onnx`."""

    weights: str = "student"
    input_size: int | None = None
    margin: float | None = None
    head: str = "dynamic"


class Exports:
    """Models of checkpoints. export: `export_onnx`, or what imports it when called. say: called once for each
    checkpoint, with what it is and where its model lies."""

    def __init__(self, export: Callable[..., Any], say: Callable[[str], None]) -> None:
        self._export, self._say = export, say
        self._known: dict[tuple[Any, ...], Path] = {}

    def model(self, checkpoint: Path, choice: Choice | None = None) -> Path:
        """The .onnx file of a checkpoint, exported if the cache has none. InputError or RunError if that cannot be."""
        choice = choice or Choice()
        key = (*_state(checkpoint), choice)
        if key not in self._known or not self._known[key].is_file():
            self._known[key] = self._found_or_made(checkpoint, choice)
        return self._known[key]

    def _found_or_made(self, checkpoint: Path, choice: Choice) -> Path:
        digest = _digest(*_state(checkpoint))
        path = cached_path(checkpoint, digest, choice)
        if (contract := _contract(path, digest)) is not None:
            self._say(f"{checkpoint}: {_network(contract)}; exported before, to {path}")
            return path
        self._say(f"{checkpoint}: exporting it, once, to {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{path.parent}: cannot hold the exported model ({error.strerror}); set XDG_CACHE_HOME to a folder "
                f"that can, or use `mal-trt export {checkpoint} -o model.onnx`"
            ) from None
        try:
            self._export(checkpoint, path, **asdict(choice))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "mal_trt":
                raise
            raise RunError(
                f"{checkpoint}: a checkpoint has to be exported first, which needs {error.name}; run: "
                'pip install "mal-trt[export]"'
            ) from None
        self._say(f"{checkpoint}: {_network(read_contract(path))}")
        return path


def cached_path(checkpoint: Path, digest: str, choice: Choice) -> Path:
    """Where the model of a checkpoint with that SHA-256 lies, once it was exported."""
    key = json.dumps([digest, asdict(choice), __version__])
    return cache_folder() / "exported" / f"{checkpoint.stem}-{sha256(key.encode()).hexdigest()[:16]}.onnx"


def _export(checkpoint: Path, out: Path, **options: Any) -> None:
    """`export_onnx`, found by its name, since no import may point up to its room."""
    import_module("mal_trt.export.export").export_onnx(checkpoint, out, **options)


_exports = Exports(_export, logging.getLogger("mal_trt").warning)


def say_with(say: Callable[[str], None]) -> None:
    """From now on `say` is called with what would otherwise be logged under "mal_trt"."""
    global _exports
    _exports = Exports(_export, say)


def model_of(checkpoint: Path, choice: Choice | None = None) -> Path:
    """The .onnx file of a checkpoint, exported if the cache has none. InputError or RunError if that cannot be."""
    return _exports.model(checkpoint, choice)


def _contract(path: Path, digest: str) -> Contract | None:
    """The contract of a model in the cache, None if there is none or it is broken."""
    from mal_trt.artifacts.parity_file import parity_path  # which needs NumPy, and --help does not

    if not (path.is_file() and parity_path(path).is_file()):
        return None
    try:
        contract = read_contract(path)
    except InputError:
        return None
    return contract if contract.source_sha256 == digest else None


def _network(contract: Contract) -> str:
    layout = f", {contract.layout} layout" if contract.arch.startswith("vit-") else ""
    return f"{contract.arch}{layout}, crops of {contract.input_size} pixels, {contract.weights} weights"


def _state(path: Path) -> tuple[Path, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return path.resolve(), found.st_size, found.st_mtime_ns


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)
