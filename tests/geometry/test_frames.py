"""Crops placed many at a time are those placed one by one, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest

from mal_trt.geometry import frames as module
from mal_trt.geometry.crops import make_frame, resized_span
from mal_trt.geometry.frames import Frames, make_frames, resized_spans


@pytest.mark.parametrize(("size", "slack"), [(192, 0.0), (64, 0.1), (512, 0.0)])
def test_frames_are_those_of_one_box_at_a_time(size: int, slack: float) -> None:
    rng = np.random.default_rng(size)
    boxes, sides = [], []
    for side in (3, 20, 90, 400, 900, 4000):
        for whole in (True, False):
            width, height = (int(v) for v in rng.integers(side, 3 * side, 2))
            for _ in range(25):
                x0, y0 = rng.uniform(0, (width - 1, height - 1))
                x1, y1 = rng.uniform((x0 + 0.2, y0 + 0.2), (width, height))
                box = [x0, y0, max(x1, x0 + 0.01), max(y1, y0 + 0.01)]
                boxes.append([float(round(v)) + 1.0 * (at > 1) for at, v in enumerate(box)] if whole else box)
                sides.append((width, height))
    found = make_frames(boxes, sides, size, 0.6, slack)
    expected = [make_frame(box, *side, size, 0.6, slack) for box, side in zip(boxes, sides, strict=True)]
    assert list(found) == expected and list(Frames.of(expected)) == expected and Frames.of(found) is found
    assert list(make_frames([], [], size)) == []


def test_frames_in_part_and_put_in_places() -> None:
    frames = make_frames([[1, 2, 30, 40], [5, 5, 9, 9], [0, 0, 50, 60]], [(50, 60)] * 3, 64)
    room = Frames.room(4, 64)
    room.put(np.array([3, 1]), frames.part(np.array([0, 2])))
    assert (room[3], room[1]) == (frames[0], frames[2])
    assert list(frames.part(slice(1, 3))) == [frames[1], frames[2]]
    assert not room.sides[[0, 2]].any() and len(room) == 4


def test_spans_of_every_small_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends that fall on the middle of a pixel too, which only Pillow's own rounding decides."""
    decided = 0

    def counted(*line: int) -> tuple[int, int]:
        nonlocal decided
        decided += 1
        return resized_span(*line)

    cases = [
        (a, b, n) for n in (1, 2, 5, 12, 24, 25, 48, 100) for a in range(0, n, 1 + n // 12) for b in range(a, n + 1)
    ]
    first, last, length = np.array(cases).T
    monkeypatch.setattr(module, "resized_span", counted)
    found = resized_spans(first, last, length, 24)
    assert 0 < decided < len(cases) * 0.7
    for (a, b, n), span in zip(cases, found.tolist(), strict=True):
        assert tuple(span) == resized_span(a, b, n, 24), (a, b, n)
