"""Figures for Prometheus, of one server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from mal_trt.geometry.boxes import SizeClass

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BOXES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What a server counts. Names of routes and statuses alone are labels, so that no client can make new ones."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("mal_trt_requests", "Requests answered.", ("route", "status"), registry=own)
        self.seconds = Histogram(
            "mal_trt_request_seconds", "From a request's head to its answer.", ("route",), buckets=SECONDS, registry=own
        )
        self.boxes = Counter("mal_trt_boxes", "Boxes that became masks.", ("size",), registry=own)
        self.batches = Histogram(
            "mal_trt_batch_boxes", "Boxes in the network together.", ("size",), buckets=BOXES, registry=own
        )
        self.network = Histogram(
            "mal_trt_batch_seconds",
            "From the crops of a batch to its masks.",
            ("size",),
            buckets=SECONDS,
            registry=own,
        )
        self._waiting = Gauge("mal_trt_waiting_boxes", "Boxes that wait for the network.", registry=own)

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Where the number of waiting boxes is known."""
        self._waiting.set_function(count)

    def batch(self, size: SizeClass, boxes: int, seconds: float) -> None:
        """A batch has become masks."""
        name = size.name.lower()
        self.boxes.labels(name).inc(boxes)
        self.batches.labels(name).observe(boxes)
        self.network.labels(name).observe(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)
