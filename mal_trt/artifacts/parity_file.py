"""The parity file beside a model: a few real crops and the right logits of each. Engines are judged by it in `parity`.

It is an .npz archive: `image`, `size_classes` int64 [G], and logits under their outputs' names. Where each size class
has crops of its own, all of these are there for each class, called `small.image` and so on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass

LOGITS = "logits"


@dataclass(frozen=True)
class ParityCrops:
    """Crops and their right logits.

    image: uint8 [K,3,S,S]. sizes: the G size classes that they are run for. logits: by the output's name, float32
    [G,K,1,L,L].
    """

    image: np.ndarray
    sizes: tuple[SizeClass, ...]
    logits: Mapping[str, np.ndarray]

    def rows(self) -> Iterator[tuple[SizeClass, np.ndarray]]:
        """Each size class with the output `logits` for it, float32 [K,1,L,L]."""
        return zip(self.sizes, self.logits[LOGITS], strict=True)


def parity_path(model: Path) -> Path:
    """The parity file beside a model."""
    return model.with_suffix(".parity.npz")


def engine_parity_path(engine: Path) -> Path:
    """The copy of it beside an engine, which goes where the engine goes: `model.engine.parity.npz`."""
    return engine.with_name(engine.name + ".parity.npz")


def parity_bytes(parts: Sequence[ParityCrops]) -> bytes:
    """Contents of a parity file. parts: one for all size classes, or one for each."""
    arrays: dict[str, np.ndarray] = {}
    for part in parts:
        before = _prefix(part.sizes[0]) if len(parts) > 1 else ""
        own = {"image": part.image, "size_classes": np.array(part.sizes, np.int64), **part.logits}
        arrays |= {before + name: values for name, values in own.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    return buffer.getvalue()


def read_parity(path: Path) -> list[ParityCrops]:
    """What a parity file holds, as `parity_bytes` takes it; InputError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        return [_part(arrays, before) for before in ([""] if "image" in arrays else map(_prefix, SizeClass))]
    except Exception as error:  # numpy and zipfile raise many kinds
        raise InputError(f"{path}: not a parity file of `mal-trt export` ({error})") from None


def _part(arrays: Mapping[str, np.ndarray], before: str) -> ParityCrops:
    sizes = tuple(SizeClass(int(size)) for size in arrays[f"{before}size_classes"])
    names = [name for name in arrays if name.startswith(before + LOGITS)]
    logits = {name.removeprefix(before): arrays[name] for name in names}
    if any(len(values) != len(sizes) for values in (logits[LOGITS], *logits.values())):
        raise ValueError(f"logits of {len(logits[LOGITS])} size classes, expected {len(sizes)}")
    return ParityCrops(arrays[f"{before}image"], sizes, logits)


def _prefix(size: SizeClass) -> str:
    return f"{size.name.lower()}."
