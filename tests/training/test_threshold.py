"""The threshold chosen without masks."""

from __future__ import annotations

import numpy as np
import pytest

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.training.threshold import box_agreement, choose_threshold

BOX = np.array([10.0, 20.0, 30.0, 40.0])


def test_box_agreement() -> None:
    assert box_agreement(LocalMask(10, 20, np.ones((20, 20), bool)), BOX) == 1
    cross = np.zeros((20, 20), bool)
    cross[10], cross[:, 10] = True, True
    assert box_agreement(LocalMask(10, 20, cross), BOX) == 1
    assert box_agreement(LocalMask(10, 20, np.ones((10, 20), bool)), BOX) == pytest.approx(0.5)
    assert box_agreement(LocalMask(10, 20, np.zeros((20, 20), bool)), BOX) == 0


def test_the_highest_threshold_that_still_reaches_the_box() -> None:
    assert choose_threshold({0.1: 0.96, 0.2: 0.965, 0.3: 0.956, 0.4: 0.94}) == 0.3
