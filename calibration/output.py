"""Writing a converted model: checked, compared, and only then given its name, with its parity file beside it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.parity import read_references
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.base.outputs import check_apart, check_file, not_written, write_whole
from mal_trt.calibration.sample import CropBatch, Spot
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame

PARITY_CROPS = 4


def check_out(out: Path, model: Path | None = None) -> None:
    """InputError if a model cannot be written there; model: what it is made of, which must stay."""
    check_file(out, (".onnx",))
    check_file(parity_path(out))
    check_apart([out], [model])


@contextmanager
def beside(files: Mapping[Path, bytes]) -> Iterator[None]:
    """What goes beside a result, written before it: if either fails, what was there before is there again."""
    before = {path: path.read_bytes() if path.is_file() else None for path in files}
    try:
        for path, content in files.items():
            write_whole(path, content)
        yield
    except (OSError, MalTrtError, KeyboardInterrupt):
        for path, content_before in before.items():
            with suppress(OSError, RunError):
                if content_before is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, content_before)
        raise


@contextmanager
def scratch(out: Path, mark: str) -> Iterator[Path]:
    """Name of a temporary file beside `out`, removed at the end if it is still there."""
    path = out.with_name(f".{out.stem}.{os.getpid()}.{mark}.part{out.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model file; RunError if that fails."""
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise not_written(path, error) from None


def parity_path(model: Path) -> Path:
    """The parity file beside a model file."""
    return model.with_suffix(".parity.npz")


def report_path(out: Path) -> Path:
    """The report beside a file that was made."""
    return out.with_suffix(".report.json")


def publish(part: Path, out: Path, parity: bytes, more: Mapping[Path, bytes] | None = None) -> None:
    """Give a finished model its name, and put its parity file beside it, and what else belongs to it."""
    try:
        with beside({parity_path(out): parity, **(more or {})}):
            os.replace(part, out)
    except OSError as error:
        raise not_written(out, error) from None


def parity_of(source: Path, contract: Contract, batches: list[CropBatch]) -> bytes:
    """Contents of the parity file that a model made from `source` gets: its own, or made of the first crops."""
    if parity_path(source).is_file():
        return parity_path(source).read_bytes()
    classes = list(SizeClass) if contract.head == "dynamic" else [SizeClass.MEDIUM]
    arrays: dict[str, Any] = {}
    backend = open_backend(source, device="cpu", backend="onnxruntime")
    try:
        for sizes in [[size] for size in SizeClass] if contract.sizes else [classes]:
            image = _first_crops(batches, contract, sizes[0])
            before = f"{sizes[0].name.lower()}." if contract.sizes else ""
            arrays[f"{before}image"], arrays[f"{before}size_classes"] = image, np.array(sizes, np.int64)
            arrays[f"{before}logits"] = np.stack([backend.run(image, size) for size in sizes])
    finally:
        backend.close()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _first_crops(batches: list[CropBatch], contract: Contract, size: SizeClass) -> np.ndarray:
    """A few crops of the side that a size class takes, [n,3,S,S]; grey ones where there are none."""
    side = contract.side(size)
    found = [batch.image for batch in batches if batch.image.shape[-1] == side]
    return np.concatenate(found or [np.full((1, 3, side, side), 128, contract.input_dtype)])[:PARITY_CROPS]


def parity_batches(source: Path, contract: Contract) -> list[CropBatch]:
    """The crops of the parity file beside a model, once for each size class the model tells apart.

    Each crop counts as a picture of its own whose box is all of it. InputError if there is no such file.
    """
    path = parity_path(source)
    try:
        references = read_references(path)
    except InputError:
        raise InputError(f"{path}: no parity crops to check on; give pictures and boxes of your own") from None
    batches = []
    for size, image, _ in references:
        side = contract.side(size)
        box = (0.0, 0.0, float(side), float(side))
        frame = make_frame(box, side, side, side, 0.0)
        spots = tuple(Spot(path, str(i), side, side, box, size, {}) for i in range(len(image)))
        batches.append(CropBatch(size, image.astype(contract.input_dtype), (frame,) * len(image), spots))
    return batches
