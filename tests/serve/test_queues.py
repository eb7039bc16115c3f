"""Boxes of many requests in shared batches: bounded, in turn, and no longer held up than is said."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from mal_trt.geometry.boxes import SizeClass
from mal_trt.serve.queues import BoxQueues, Job, Overloaded

SMALL, LARGE = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 200.0, 200.0)


def job(*boxes: Any, side: int = 10) -> Job:
    return Job(np.zeros((side, side, 3), np.uint8), boxes, lambda error: None)


def queues(boxes: int = 100, pixels: int = 10_000, wait: float = 0.0) -> BoxQueues:
    return BoxQueues(boxes, pixels, wait)


def test_each_batch_is_of_one_size_class() -> None:
    waiting = queues()
    waiting.put(job(SMALL, LARGE, SMALL, None))
    taken = [waiting.take(16), waiting.take(16)]
    assert {size: [one.place for one in batch] for size, batch in filter(None, taken)} == {
        SizeClass.SMALL: [0, 2],
        SizeClass.LARGE: [1],
    }
    assert len(waiting) == 0


def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    waiting = queues()
    large, small = job(*[SMALL] * 50), job(SMALL, SMALL)
    waiting.put(large)
    waiting.put(small)
    taken = waiting.take(8)
    assert taken is not None
    assert [(one.job is small, one.place) for one in taken[1]] == [
        (False, 0),
        (True, 0),
        (False, 1),
        (True, 1),
        *[(False, place) for place in range(2, 6)],
    ]


def test_no_more_boxes_than_there_is_room_for() -> None:
    waiting = queues(boxes=4)
    waiting.put(job(*[SMALL] * 3))
    with pytest.raises(Overloaded) as refused:
        waiting.put(job(SMALL, SMALL))
    assert refused.value.retry_after >= 1
    assert len(waiting) == 3
    waiting.put(job(SMALL))


def test_no_more_pixels_than_there_is_room_for() -> None:
    waiting = queues(pixels=10_000)
    first = job(SMALL, side=200)
    waiting.put(first)  # alone, it may be larger
    with pytest.raises(Overloaded):
        waiting.put(job(SMALL))
    taken = waiting.take(4)
    assert taken is not None
    first.ended = True
    waiting.finished(taken[1])
    waiting.put(job(SMALL))


def test_what_has_ended_is_not_labelled() -> None:
    waiting = queues()
    gone, dropped, kept = job(SMALL), job(SMALL, LARGE), job(SMALL)
    for one in (gone, dropped, kept):
        waiting.put(one)
    gone.ended = True
    waiting.drop(dropped)
    taken = waiting.take(4)
    assert taken is not None and [one.job for one in taken[1]] == [kept]
    assert len(waiting) == 0


def test_a_batch_waits_for_boxes_that_are_known_to_come() -> None:
    waiting = queues(wait=60)
    with waiting.expecting():
        waiting.put(job(SMALL))
        late = threading.Timer(0.05, lambda: waiting.put(job(SMALL)))
        late.start()
        taken = waiting.take(2)
    assert taken is not None and len(taken[1]) == 2


def test_and_no_longer_than_is_said() -> None:
    waiting = queues(wait=0.2)
    with waiting.expecting():
        one = job(SMALL)
        waiting.put(one)
        taken = waiting.take(16)
        assert taken is not None and len(taken[1]) == 1
        assert time.monotonic() - one.arrived >= 0.2


def test_nothing_is_waited_for_when_nothing_is_to_come() -> None:
    waiting = queues(wait=3600)
    waiting.put(job(SMALL))
    assert waiting.take(16) is not None  # else the test would not end


def test_what_waits_is_still_given_out_when_it_is_closed() -> None:
    waiting = queues()
    waiting.put(job(SMALL))
    waiting.close()
    with pytest.raises(Overloaded):
        waiting.put(job(SMALL))
    assert waiting.take(16) is not None
    assert waiting.take(16) is None


def test_a_job_is_done_once() -> None:
    from mal_trt.base.errors import RunError

    told: list[Any] = []
    one = Job(np.zeros((10, 10, 3), np.uint8), [SMALL, SMALL], told.append)
    one.fail(RunError("first"))
    one.fail(RunError("second"))
    assert [str(error) for error in told] == ["first"]
