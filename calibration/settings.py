"""How to calibrate; one field, one option of `mal-trt calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mal_trt.artifacts.contract import CPU_TARGET
from mal_trt.base.errors import InputError
from mal_trt.calibration.observe import OBSERVERS
from mal_trt.calibration.quantize import GROUPS, TYPES

LEAST_CROPS = 32
TARGETS = ("tensorrt", CPU_TARGET)
# Of mIoU, and of the agreement with the original's masks where none are drawn: an agreement of .986 came with a fall of
# mIoU by .0015 at most, and with a processor's 8-bit values .958 by .0045 (benchmarks/README.md).
MIOU_DROP, AGREEMENT_DROP, CPU_AGREEMENT_DROP = 0.005, 0.02, 0.03


@dataclass(frozen=True)
class CalibrationSettings:
    """How to calibrate.

    - `precision`: "int8" or "fp8". `observer`: how a range is chosen: "mse", "max", "percentile" or "entropy".
    - `crops`: how many real crops the ranges come from. `check_crops`: how many others the result is checked on.
    - `layers`: groups of layers: "linear", "conv", "patch", "head". None given: what suits the encoder, or all
      for a processor.
    - `exclude`: layers to leave in FP16, by the beginning or the end of their name.
    - `smooth`: SmoothQuant's alpha; 0: off. `max_miou_drop`: how much mIoU may drop, or the agreement with the
      original's masks where none are drawn; None: .005 of the one, .02 of the other, .03 for a processor.
    - `sensitivity_crops`: how many crops each layer is tried alone on; 0: only if the check fails.
    - `batch`: crops run at once. `threads`: threads of the processor.
    - `target`: "tensorrt" or "cpu": whose 8-bit kernels the file is for.
    """

    precision: str = "int8"
    observer: str = "mse"
    crops: int = 512
    check_crops: int = 256
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    smooth: float = 0.0
    max_miou_drop: float | None = None
    sensitivity_crops: int = 48
    batch: int = 8
    threads: int | None = None
    target: str = "tensorrt"

    def __post_init__(self) -> None:
        for option, texts in (("layers", self.layers), ("exclude", self.exclude)):
            if isinstance(texts, str):
                raise InputError(f"--{option} {texts}: in Python a sequence of texts, such as ({texts!r},)")
        choices = (
            ("precision", (self.precision,), TYPES),
            ("observer", (self.observer,), OBSERVERS),
            ("target", (self.target,), TARGETS),
        )
        for option, values, allowed in (*choices, ("layers", self.layers, GROUPS)):
            for value in values:
                if value not in allowed:
                    raise InputError(f"--{option} {value}: expected one of {', '.join(allowed)}")
        if self.target == CPU_TARGET and self.precision != "int8":
            raise InputError(f"--precision {self.precision}: processors compute in INT8; leave --target cpu out")
        for option, share in (("smooth", self.smooth), ("max-miou-drop", self.max_miou_drop)):
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"--{option} {share}: expected a number from 0 to 1")
        numbers = (("batch", self.batch, 1), ("threads", self.threads, 1))
        for option, number, least in (*numbers, ("sensitivity-crops", self.sensitivity_crops, 0)):
            if number is not None and number < least:
                raise InputError(f"--{option} {number}: expected {least} or more")
        if self.crops < LEAST_CROPS:
            raise InputError(f"--crops {self.crops}: ranges need {LEAST_CROPS} at least")
        if self.check_crops < 1:
            raise InputError(f"--check-crops {self.check_crops}: expected 1 or more")

    def limit(self, drawn: bool) -> float:
        """How much may drop: of mIoU with drawn masks, or of the agreement."""
        if self.max_miou_drop is not None:
            return self.max_miou_drop
        agreement = CPU_AGREEMENT_DROP if self.target == CPU_TARGET else AGREEMENT_DROP
        return MIOU_DROP if drawn else agreement

    @property
    def measured(self) -> dict[str, Any]:
        """The settings that spectra depend on. The batch is not among them: adding to a spectrum is exact."""
        found = {name: getattr(self, name) for name in ("crops", "check_crops", "layers", "exclude", "smooth")}
        return found | ({"target": self.target} if self.target == CPU_TARGET else {})

    @property
    def tried(self) -> str:
        """Names the other settings that the cost of a layer alone depends on."""
        return f"{self.precision}, {self.observer}, {self.sensitivity_crops} crops"
