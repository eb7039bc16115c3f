"""`mal-trt inspect`: what a checkpoint, an ONNX file or an engine is, without running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.artifacts.enginefile import MAGIC, load_engine
from mal_trt.artifacts.flavor import TITLES
from mal_trt.artifacts.onnxfile import read_onnx
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.artifacts.toollines import tool_lines
from mal_trt.base.errors import InputError
from mal_trt.base.files import NOTHING, REGULAR, file_kind

CHECKPOINT = (b"PK", b"\x80")  # PyTorch's zip, and the pickle of its older files


def inspect(path: Path, checkpoint: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Facts of a file as a JSON-like document; `kind` is "checkpoint", "onnx" or "engine". InputError otherwise.

    Told apart by content, not by name: an ONNX file called .engine is an ONNX file. checkpoint: reads the facts of a
    checkpoint, which takes PyTorch.
    """
    if (kind := file_kind(path)) != REGULAR:
        what = "no such file" if kind == NOTHING else f"{kind}, not a model file"
        raise InputError(f"{path}: {what}; give a checkpoint, an .onnx file or an engine")
    with path.open("rb") as file:
        start = file.read(8)
    if start[:4] in MAGIC:
        return _engine(path)
    if start.startswith(CHECKPOINT) or path.suffix.lower() == ".safetensors":
        return _head(path, "checkpoint") | checkpoint(path)
    try:
        return _onnx(path)
    except InputError:
        if path.suffix.lower() == ".onnx":
            raise
    if path.suffix.lower() in (".engine", ".plan"):
        load_engine(path)  # says what it is instead
    return _head(path, "checkpoint") | checkpoint(path)


def _head(path: Path, kind: str) -> dict[str, Any]:
    return {"file": str(path), "kind": kind, "bytes": path.stat().st_size}


def _engine(path: Path) -> dict[str, Any]:
    """An engine that is whole and unchanged; whether it runs here is another question."""
    _, manifest = load_engine(path)
    document = asdict(manifest)
    document[METADATA_KEY] = document.pop("contract")
    title = f"{TITLES[manifest.flavor]} {manifest.version}"
    return {**_head(path, "engine"), "title": title, **document, "tools": tool_lines(path, manifest)}


def _onnx(path: Path) -> dict[str, Any]:
    facts = read_onnx(path)
    document = asdict(facts)
    metadata = document.pop("metadata")
    contract = metadata.pop(METADATA_KEY, None)
    mal = asdict(Contract.from_json(contract, str(path))) if contract is not None else None
    parity = parity_path(path)
    found = {"parity": parity.name if parity.is_file() else None, METADATA_KEY: mal}
    return {**_head(path, "onnx"), **document, "metadata": metadata, **found}
