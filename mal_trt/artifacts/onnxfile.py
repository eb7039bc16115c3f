"""Reading an ONNX file's facts without the onnx package: metadata, operators, inputs and outputs.

An ONNX file is one protobuf message; only the fields named here are looked at, weights are stepped over.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mal_trt.artifacts.contract import METADATA_KEY, REEXPORT, Contract
from mal_trt.base.errors import InputError

# Field numbers of onnx.proto3.
PRODUCER, PRODUCER_VERSION, GRAPH, OPSETS, METADATA = 2, 3, 7, 8, 14
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12
OP_TYPE, DATA_TYPE = 4, 2
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    16: "bfloat16",
    17: "float8",
}


@dataclass(frozen=True)
class OnnxFile:
    """Facts of an ONNX file. inputs, outputs: name -> such as `uint8 [batch, 3, 512, 512]`; weights: type -> how
    many tensors."""

    opset: int
    producer: str
    metadata: dict[str, str]
    operators: dict[str, int]
    weights: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]


def read_onnx(path: Path) -> OnnxFile:
    """Facts of a file; InputError if it is not an ONNX model."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _model(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, IndexError, KeyError):  # an empty file, too, which cannot be mapped
        raise InputError(f"{path}: not an ONNX file; `mal-trt export` writes one") from None


def read_contract(path: Path) -> Contract:
    """The `mal_trt` document of an ONNX file; InputError if there is none."""
    return contract_of(read_onnx(path).metadata, path)


def contract_of(metadata: Mapping[str, str], path: Path) -> Contract:
    """The `mal_trt` document in an ONNX file's metadata; InputError if there is none. path: names it in errors."""
    if METADATA_KEY not in metadata:
        raise InputError(f"{path}: an ONNX file without mal-trt's `{METADATA_KEY}` metadata; {REEXPORT}")
    return Contract.from_json(metadata[METADATA_KEY], str(path))


def _model(data: mmap.mmap) -> OnnxFile:
    opset, producer, version, metadata = 0, "", "", {}
    graph: tuple[int, int] | None = None
    for number, value in _fields(data, 0, len(data)):
        if number == GRAPH:
            graph = _part(value)
        elif number == PRODUCER:
            producer = _text(data, value)
        elif number == PRODUCER_VERSION:
            version = _text(data, value)
        elif number == OPSETS:
            entry = dict(_fields(data, *_part(value)))
            if not _text(data, entry.get(1, (0, 0))):  # the standard operators' domain has no name
                opset = _number(entry.get(2, 0))
        elif number == METADATA:
            entry = dict(_fields(data, *_part(value)))
            metadata[_text(data, entry[1])] = _text(data, entry.get(2, (0, 0)))
    if graph is None or not opset:
        raise ValueError
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    values: dict[int, dict[str, str]] = {INPUT: {}, OUTPUT: {}}
    for number, value in _fields(data, *graph):
        if number == NODE:
            operators[_text(data, dict(_fields(data, *_part(value))).get(OP_TYPE, (0, 0)))] += 1
        elif number == INITIALIZER:
            kind = _number(dict(_fields(data, *_part(value))).get(DATA_TYPE, 0))
            weights[ELEMENT_TYPES.get(kind, f"type {kind}")] += 1
        elif number in values:
            name, shape = _value_info(data, *_part(value))
            values[number][name] = shape
    return OnnxFile(
        opset,
        f"{producer} {version}".strip(),
        metadata,
        dict(sorted(operators.items())),
        dict(sorted(weights.items())),
        values[INPUT],
        values[OUTPUT],
    )


def _value_info(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    """Name of an input or output, and its type and shape for people."""
    entry = dict(_fields(data, start, end))
    tensor = dict(_fields(data, *_part(dict(_fields(data, *_part(entry[2])))[1])))
    element = _number(tensor.get(1, 0))
    dimensions = []
    for _, value in _fields(data, *_part(tensor.get(2, (0, 0)))):
        side = dict(_fields(data, *_part(value)))
        dimensions.append(str(_number(side[1])) if 1 in side else _text(data, side.get(2, (0, 0))) or "?")
    return _text(data, entry[1]), f"{ELEMENT_TYPES.get(element, f'type {element}')} [{', '.join(dimensions)}]"


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Fields of the message between two bytes: (number, its integer, or where its bytes begin and end)."""
    while start < end:
        key, start = _varint(data, start)
        number, wire = key >> 3, key & 7
        value: int | tuple[int, int]
        if wire == 0:
            value, start = _varint(data, start)
        elif wire in (1, 5):
            value = (start, start + (8 if wire == 1 else 4))
            start = value[1]
        elif wire == 2:
            length, start = _varint(data, start)
            value = (start, start + length)
            start = value[1]
        else:
            raise ValueError
        if start > end or not number:
            raise ValueError
        yield number, value


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """An integer of seven bits to the byte, and the byte after it."""
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError


def _part(value: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        raise ValueError
    return value


def _number(value: int | tuple[int, int]) -> int:
    if not isinstance(value, int):
        raise ValueError
    return value


def _text(data: mmap.mmap, value: int | tuple[int, int]) -> str:
    start, end = _part(value)
    return data[start:end].decode()
