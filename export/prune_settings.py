"""How to prune; one field, one option of `mal-trt prune`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mal_trt.base.errors import InputError
from mal_trt.calibration.settings import AGREEMENT_DROP, MIOU_DROP
from mal_trt.training.sparse import KINDS, SCORES

LEAST_CROPS = 16
# How many times the limit may be passed before a recovery, which brings that much back (docs/verbs/prune.md).
RECOVERABLE = 1.4


@dataclass(frozen=True)
class PruneSettings:
    """How to prune.

    - `sparsity`: "2:4", or "none". `macs`: share of the multiplications that is to be left by narrower layers; None
      cuts none.
    - `score`: what decides which weights go: "magnitude", "wanda" or "sparsegpt". `layers`: kinds of layers to make
      sparse: "linear", "pointwise" (1x1 convolutions) or "conv" (larger kernels).
    - `skip`: layers and widths to leave as they are, by a part of their name.
    - `recover`: crops to train on afterwards, with the dense network as the teacher; 0: none. `lr`: its learning rate,
      for each box of a step.
    - `crops`: how many real crops scores come from. `check_crops`: how many others the result is checked on.
    - `max_miou_drop`: how much mIoU may drop, or the agreement with the dense network's masks where fewer than half are
      drawn; None: .005 of the one, .02 of the other.
    - `sensitivity_crops`: how many crops each layer is tried alone on, if not all of them can be sparse.
    - `batch`: crops run at once. `threads`: threads of the processor. `precision`: of the recovery's arithmetic.
    """

    sparsity: str = "2:4"
    macs: float | None = None
    score: str = "sparsegpt"
    layers: tuple[str, ...] = KINDS
    skip: tuple[str, ...] = ()
    recover: int = 0
    lr: float = 1e-5
    crops: int = 128
    check_crops: int = 256
    max_miou_drop: float | None = None
    sensitivity_crops: int = 48
    batch: int = 8
    threads: int | None = None
    precision: str = "auto"
    device: str = "auto"
    preload: bool = False

    def __post_init__(self) -> None:
        choices = (("sparsity", (self.sparsity,), ("2:4", "none")), ("score", (self.score,), SCORES))
        for option, values, allowed in (*choices, ("layers", self.layers, KINDS)):
            for value in values:
                if value not in allowed:
                    raise InputError(f"--{option} {value}: expected one of {', '.join(allowed)}")
        if not 0 < self.lr < math.inf:
            raise InputError(f"--lr {self.lr:g}: expected a number above 0")
        if self.macs is not None and not 0 < self.macs < 1:
            raise InputError(f"--macs {self.macs:g}: expected a share of the multiplications, such as 0.7")
        if self.sparsity == "none" and self.macs is None:
            raise InputError("nothing to prune: give --sparsity 2:4, or --macs with a share such as 0.7")
        if self.crops < LEAST_CROPS or self.check_crops < 1:
            raise InputError(f"--crops {self.crops}: scores need {LEAST_CROPS} at least, and one to check on")

    def limit(self, drawn: bool) -> float:
        """How much may drop: of mIoU with drawn masks, or of the agreement."""
        return (MIOU_DROP if drawn else AGREEMENT_DROP) if self.max_miou_drop is None else self.max_miou_drop
