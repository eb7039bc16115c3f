"""Training runs that end in the middle, and whether what goes on from them comes to the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mal_trt.training import loop
from mal_trt.training.checkpoint import read_checkpoint


class Killed(BaseException):
    """Stands for kill -9: nothing in the package catches it."""


@contextmanager
def ended_at(step: int, by: type[BaseException] = Killed) -> Iterator[None]:
    """The run inside ends by an exception after this number of steps; fails if it does not."""
    logged = loop.RunLog.step

    def end(self: loop.RunLog, *given: Any) -> None:
        if self.trainer.step == step:
            raise by
        logged(self, *given)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(by):
        patch.setattr(loop.RunLog, "step", end)
        yield


def same_weights(one: Path, other: Path) -> None:
    """Fails unless two checkpoints are of the same step and equal in every bit of their networks."""
    ours, theirs = read_checkpoint(one), read_checkpoint(other)
    assert ours.meta["step"] == theirs.meta["step"]
    for part in ("student", "teacher"):
        a, b = ours.weights(part), theirs.weights(part)
        assert a is not None and b is not None and a.keys() == b.keys()
        for name, tensor in b.items():
            torch.testing.assert_close(a[name], tensor, rtol=0, atol=0, msg=name)
