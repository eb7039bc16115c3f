"""Reading PyTorch's zip files without running anything in them.

`torch.load` either executes what the pickle asks for or refuses any class it does not know. Checkpoints in
the wild carry configuration objects (omegaconf, nvidia_tao_core, argparse), so here a pickle may name
anything, but only tensors and plain containers come to life: every other name turns into an inert `Opaque`.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mal_trt.base.errors import InputError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Opaque:
    """Stands for an object of a class that is not loaded: takes any arguments and state, keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Opaque:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Opaque:
        return Opaque()

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass


@dataclass(frozen=True)
class StoredTensor:
    """A tensor still in its file: element type, offset and strides (in elements) into one stored record."""

    archive: zipfile.ZipFile
    record: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor, contiguous, on the CPU."""
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.dtype)
        flat = torch.frombuffer(bytearray(self.archive.read(self.record)), dtype=self.dtype)
        if prod(self.size) > flat.numel():
            raise ValueError(f"a tensor of size {self.size} over {flat.numel()} stored numbers")
        return flat.as_strided(self.size, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


def load_tensors(tree: Any) -> Any:
    """The same nest of dicts, lists and tuples with every StoredTensor read and every Opaque gone (None)."""
    if isinstance(tree, StoredTensor):
        return tree.load()
    if isinstance(tree, dict):
        return {key: load_tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(load_tensors(value) for value in tree)
    return None if isinstance(tree, Opaque) else tree


class _Unpickler(pickle.Unpickler):
    """Nothing is imported and nothing called but the three tensor builders below and OrderedDict.

    Bound methods are handed out instead of functions: a pickle cannot alter them.
    """

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.archive, self.prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
        }.get((module, name), Opaque)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return Opaque()
        return StoredTensor(self.archive, f"{self.prefix}data/{key}", dtype, 0, (), ())

    def _tensor(self, stored: Any, offset: int, size: Any, stride: Any, *_: object) -> Any:
        if not isinstance(stored, StoredTensor):
            return Opaque()
        return StoredTensor(stored.archive, stored.record, stored.dtype, int(offset), tuple(size), tuple(stride))

    def _parameter(self, tensor: Any, *_: object) -> Any:
        return tensor


def read_zip(archive: zipfile.ZipFile, path: Path) -> Any:
    """The object in a PyTorch zip file, tensors as StoredTensor (valid while `archive` is open)."""
    names = archive.namelist()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(f"{path}: a zip file, but not one PyTorch wrote; give a .pth or .safetensors checkpoint")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise InputError(f"{path}: a TorchScript program, not a checkpoint; give the file it was made from")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise InputError(f"{path}: a compressed zip, which PyTorch never writes; unpack it first")
    if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != b"little":
        raise InputError(f"{path}: written on a big-endian machine; save it again on a little-endian one")
    with archive.open(pickles[0]) as file:
        return _Unpickler(file, archive, prefix).load()
