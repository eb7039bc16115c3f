"""The values that a run's numbers may have; others would train nonsense, or fail after hours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mal_trt.base.errors import InputError

MOST_SEED = 2**63 - 1
ABOVE_ZERO = ("epochs", "lr")
FROM_ZERO = (
    *("warmup_epochs", "encoder_lr", "layer_decay", "min_lr_rate", "weight_decay", "encoder_weight_decay", "clip"),
    *("checkpoint_epochs", "validate_epochs", "min_area", "max_area"),
)
SHARES = ("teacher_momentum", "teacher_momentum_end", "balance", "figures", "paste")
COUNTS = (
    *("batch", "accumulate", "boxes_per_picture", "together", "nodes"),
    *("checkpoint_steps", "validate_steps", "val_limit"),
)


def check_ranges(values: Mapping[str, Any]) -> None:
    """InputError for the first of TrainConfig's values that is out of its range; None is in every one."""
    for names, fine, expected in (
        (ABOVE_ZERO, lambda value: 0 < value < math.inf, "a number above 0"),
        (FROM_ZERO, lambda value: 0 <= value < math.inf, "a number from 0 on"),
        (("checkpoint_minutes",), lambda value: value >= 0, "a number from 0 on"),
        (SHARES, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
        (("jitter",), lambda value: 0 <= value <= 0.5, "a number from 0 to 0.5"),
        (COUNTS, lambda value: value >= 1, "1 or more"),
        (("workers", "keep"), lambda value: value >= 0, "0 or more"),
        (("seed",), lambda value: 0 <= value <= MOST_SEED, f"a whole number from 0 to {MOST_SEED}"),
        (("devices",), _devices, "1 or more, or -1 for all"),
    ):
        for name in names:
            value = values[name]
            if value is not None and not fine(value):
                raise InputError(f"{name.replace('_', ' ')} {value}: expected {expected}")


def _devices(value: int | tuple[int, ...]) -> bool:
    return (value == -1 or value >= 1) if isinstance(value, int) else len(value) > 0 and min(value) >= 0
