"""The `mal_trt` document a model file carries: everything a runtime must know to feed it and read it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import MEDIUM_AREA, SMALL_AREA, TEST_MARGIN_RATE, SizeClass

SCHEMA = 1
METADATA_KEY = "mal_trt"
LAYOUTS = ("patch", "conv_stem", "timm", "hybrid", "pyramid")
SKIPPING = ("hybrid", "pyramid")  # layouts whose mask head also sees the maps at S/4 and S/8
INPUT_DTYPES = ("uint8", "float32")
HEADS = ("dynamic", "small", "medium", "large", "fixed")
WEIGHTS = ("student", "teacher", "mixed")
MOST_MARGIN = 10.0
REFINE = ("none", "color")
CPU_TARGET = "cpu"
Sizes = tuple[int, int, int]  # of small, medium and large boxes


@dataclass(frozen=True)
class Contract:
    """What a model file says about itself (ONNX metadata key `mal_trt`, or an engine's manifest).

    input_size: side S of the square crop, pixels; the largest where there are several. sizes: side of the crops of
    small, medium and large boxes, for a model that takes another for each; None is input_size for all. margin_rate:
    how far a crop reaches beyond its box, in half sides of the box, shared by opposite sides: 0.6 makes it 1.3
    times as long. area_bounds: upper bounds of small and medium, original square pixels, half-open on the low side.
    thresholds: mask probability above which a pixel is foreground, for small, medium and large boxes. refine: what
    labelling does to the logits unless an option says otherwise, "none" or "color" (see `geometry.refine`). head:
    "dynamic" takes the mask-head grid at run time from `head_grid`; "small", "medium" and "large" have it baked in;
    "fixed" does not adjust its scale. extra: free-form facts (calibration, notes).
    """

    arch: str
    layout: str
    input_size: int
    input_dtype: str = "uint8"
    margin_rate: float = TEST_MARGIN_RATE
    area_bounds: tuple[float, float] = (SMALL_AREA, MEDIUM_AREA)
    thresholds: tuple[float, float, float] = (0.1, 0.1, 0.1)
    refine: str = "none"
    adjust_scale: bool = True
    head: str = "dynamic"
    precision: str = "fp32"
    weights: str = "student"
    source: str = ""
    source_sha256: str = ""
    producer: str = ""
    sizes: Sizes | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def target(self) -> str:
        """What a quantised file was made for: "cpu" if a processor's 8-bit kernels may run it, else ""."""
        return str(self.extra.get("target", ""))

    def side(self, size: SizeClass) -> int:
        """Side S of the crops of boxes of one size class, pixels."""
        return self.sizes[size] if self.sizes else self.input_size

    @property
    def sides(self) -> tuple[int, ...]:
        """The different sides of crops, the smallest first."""
        return tuple(sorted(set(self.sizes or (self.input_size,))))

    def grid(self, size: SizeClass) -> int:
        """Side of the mask head's grid for boxes of one size class: S/32, S/16, S/8."""
        return (self.side(size) << size) // 32

    def logits_side(self, size: SizeClass) -> int:
        """Side of the logits for boxes of one size class: S/4, or S/2 where a head of one grid skips nothing."""
        return self.side(size) // (4 if self.adjust_scale or self.layout in SKIPPING else 2)

    def threshold(self, size: SizeClass) -> float:
        """Mask probability threshold (strictly greater) for boxes of one size class."""
        return self.thresholds[size]

    def border(self, size: SizeClass) -> float:
        """That threshold as a logit (strictly greater); -inf for a threshold of 0."""
        threshold = self.threshold(size)
        return math.log(threshold / (1 - threshold)) if threshold > 0 else -math.inf

    def to_json(self) -> str:
        """The document as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Contract:
        """Read and check the document. `where` names the file in errors; InputError names the field."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where}: its `{METADATA_KEY}` metadata is not JSON ({error}); {REEXPORT}") from None
        return cls.from_document(document, where)

    @classmethod
    def from_document(cls, document: object, where: str) -> Contract:
        """As from_json, from the parsed document. Fields this version does not know are ignored."""
        if not isinstance(document, dict):
            raise InputError(f"{where}: its `{METADATA_KEY}` metadata is not a JSON object; {REEXPORT}")
        schema = document.get("schema")
        if schema != SCHEMA:
            raise InputError(
                f"{where}: metadata schema {schema!r}, but this mal-trt reads schema {SCHEMA}; "
                "upgrade mal-trt or export the model again"
            )
        known = {}
        for entry in fields(cls):
            if entry.name in document:
                known[entry.name] = _checked(entry.name, document[entry.name], where)
            elif entry.name in ("arch", "layout", "input_size"):
                raise InputError(f"{where}: its metadata lacks the field `{entry.name}`; {REEXPORT}")
        contract = cls(**known)
        if (
            contract.head == "fixed"
            and contract.adjust_scale
            or contract.head == "dynamic"
            and not contract.adjust_scale
        ):
            raise _bad("head", contract.head, f"to agree with adjust_scale={contract.adjust_scale}", where)
        if contract.sizes is not None and contract.sizes[-1] != contract.input_size:
            raise _bad("sizes", list(contract.sizes), f"to end with the input_size {contract.input_size}", where)
        if contract.sizes is not None and contract.head in ("small", "medium", "large"):
            raise _bad("head", contract.head, "dynamic or fixed where there are sizes", where)
        return contract


def check_for_gpu(contract: Contract, where: object, tool: str) -> None:
    """InputError if the model was made for processors. where: names it; tool: that cannot take it."""
    if contract.target == CPU_TARGET:
        raise InputError(
            f"{where}: its INT8 is made for processors (calibrate --target cpu), which {tool} cannot take; give the "
            "FP32 model, or calibrate that with --target tensorrt"
        )


REEXPORT = "write it again with `mal-trt export CHECKPOINT -o model.onnx`"


def _bad(name: str, value: object, wanted: str, where: str) -> InputError:
    return InputError(f"{where}: metadata field `{name}` is {value!r}, expected {wanted}; {REEXPORT}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked(name: str, value: Any, where: str) -> Any:
    """The value of one field in its Python type, or InputError."""
    choices = {"layout": LAYOUTS, "input_dtype": INPUT_DTYPES, "head": HEADS, "weights": WEIGHTS, "refine": REFINE}
    if name in choices:
        if value not in choices[name]:
            raise _bad(name, value, "one of " + ", ".join(choices[name]), where)
    elif name in ("arch", "precision", "source", "source_sha256", "producer"):
        if not isinstance(value, str):
            raise _bad(name, value, "a string", where)
    elif name == "input_size":
        if not isinstance(value, int) or isinstance(value, bool) or value < 32 or value % 16:
            raise _bad(name, value, "a multiple of 16, at least 32", where)
    elif name == "margin_rate":
        if not _is_number(value) or not 0 <= value <= MOST_MARGIN:
            raise _bad(name, value, f"a number from 0 to {MOST_MARGIN}", where)
        return float(value)
    elif name == "sizes":
        if value is None:
            return None
        whole = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if not whole or len(value) != 3 or value[0] < 32 or any(v % 16 for v in value) or value != sorted(value):
            raise _bad(name, value, "three multiples of 16, at least 32, none below the one before", where)
        return tuple(value)
    elif name == "thresholds":
        if not isinstance(value, list) or len(value) != 3 or not all(_is_number(v) and 0 <= v < 1 for v in value):
            raise _bad(name, value, "three numbers from 0 to below 1 (small, medium, large)", where)
        return tuple(float(v) for v in value)
    elif name == "area_bounds":
        if value != [SMALL_AREA, MEDIUM_AREA]:
            raise _bad(name, value, f"[{SMALL_AREA:g}, {MEDIUM_AREA:g}], the only size classes supported", where)
        return SMALL_AREA, MEDIUM_AREA
    elif name == "adjust_scale":
        if not isinstance(value, bool):
            raise _bad(name, value, "true or false", where)
    elif name == "extra" and not isinstance(value, dict):
        raise _bad(name, value, "an object", where)
    return value
