"""The metadata document: it survives a round trip, and a bad one is refused by field name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mal_trt.artifacts.contract import Contract
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass

FULL = Contract(
    arch="vit-deit-tiny/16",
    layout="patch",
    input_size=256,
    input_dtype="float32",
    margin_rate=0.4,
    thresholds=(0.2, 0.3, 0.4),
    head="large",
    precision="fp16",
    weights="mixed",
    source="model.pth",
    source_sha256="ab" * 32,
    producer="mal-trt 0.1",
    extra={"note": "é", "steps": 3},
)


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(FULL.to_json()), **values})


def test_round_trip() -> None:
    assert Contract.from_json(FULL.to_json(), "m.onnx") == FULL


def test_defaults_are_mal() -> None:
    contract = Contract.from_json('{"schema": 1, "arch": "a", "layout": "patch", "input_size": 512}', "m.onnx")
    assert contract.margin_rate == 0.6
    assert contract.area_bounds == (1024.0, 9216.0)
    assert [contract.threshold(size) for size in SizeClass] == [0.1, 0.1, 0.1]
    assert [contract.grid(size) for size in SizeClass] == [16, 32, 64]


def test_unknown_fields_are_ignored() -> None:
    assert Contract.from_json(changed(from_the_future=1), "m.onnx") == FULL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("schema", None),
        ("arch", 3),
        ("layout", "swin"),
        ("layout", ["patch"]),
        ("input_size", 0),
        ("input_size", 250),
        ("input_size", "256"),
        ("input_size", True),
        ("input_dtype", "float16"),
        ("margin_rate", -0.1),
        ("margin_rate", None),
        ("thresholds", [0.1]),
        ("thresholds", [0.1, 0.1, float("nan")]),
        ("thresholds", 0.1),
        ("area_bounds", [100, 1000]),
        ("adjust_scale", "yes"),
        ("adjust_scale", False),
        ("head", "fixed"),
        ("weights", "ema"),
        ("extra", []),
    ],
)
def test_bad_field_is_named(field: str, value: Any) -> None:
    changes = {field: value, "head": "dynamic"} if field == "adjust_scale" else {field: value}
    with pytest.raises(InputError) as caught:
        Contract.from_json(changed(**changes), "m.onnx")
    message = str(caught.value)
    assert message.startswith("m.onnx: ") and "\n" not in message
    assert field in message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": 1}'])
def test_not_a_document(text: str) -> None:
    with pytest.raises(InputError, match=r"^m\.onnx: .*mal-trt export"):
        Contract.from_json(text, "m.onnx")
