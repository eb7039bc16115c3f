"""A model and its options: pixels around boxes to logits and to masks. Where, on CPU or GPU: `masker`."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.artifacts.contract import REFINE
from mal_trt.artifacts.models import resolve_model
from mal_trt.backends import Backend, DeviceBackend, open_backend
from mal_trt.backends.choice import AUTO
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass, size_class
from mal_trt.geometry.crops import Frame, make_frame, read_crop, reduced_by, reduction
from mal_trt.geometry.frames import Frames, make_frames
from mal_trt.geometry.paste import edges_from_logits, tight_threshold
from mal_trt.geometry.quality import soft_iou
from mal_trt.geometry.refine import refine_colour
from mal_trt.geometry.rle_batch import rles_from_edges
from mal_trt.labelling.masker import Mask

TIGHT = "tight"
# Boxes in a batch unless another number is given: on a processor, and at most on a GPU.
DEFAULT_BATCH, LARGEST_BATCH = 16, 64
Threshold = float | Sequence[float] | str | None


class Predictor:
    """A model and how to use it: cut crops, run them in batches of one size class, turn logits into masks.

    model: an ONNX file, an engine, a checkpoint, "bundled", or a backend, which is then closed with it. device: "auto",
    "cpu" or "cuda". threshold: mask probability, one number or three (small, medium, large boxes), or "tight", see
    `geometry.paste.tight_threshold`; None is the model's own.
    flip: average the logits of the mirrored crop too. refine: "color" (see `geometry.refine`) or "none"; None is the
    model's own choice. weights: "student", "teacher" or "mixed" where the model carries both. threads: CPU threads
    of the network. slack: how far masks may leave their boxes on each side, as a share of the box; at most a quarter of
    the model's margin. backend: what runs the model, one of `backends.choice.BACKENDS`. lanes: runs of the network that
    will go on at once, each with `threads` threads.
    """

    def __init__(
        self,
        model: str | Path | Backend = "bundled",
        device: str = "auto",
        *,
        threshold: Threshold = None,
        flip: bool = False,
        refine: str | None = None,
        weights: str | None = None,
        threads: int | None = None,
        slack: float = 0.0,
        backend: str = AUTO,
        lanes: int = 1,
    ) -> None:
        if isinstance(threshold, (np.ndarray, np.generic)):
            threshold = threshold.tolist()
        given = None if threshold is None or threshold == TIGHT else _three(threshold)
        if refine not in (None, *REFINE):
            raise InputError(f"refine {refine}: expected {' or '.join(REFINE)}")
        check_device(device)
        if model is None:
            raise InputError("model None: expected the path of a model file, a name such as `bundled`, or a backend")
        if isinstance(model, (str, Path)):
            model = open_backend(resolve_model(model, weights), device, threads, backend, lanes)
        self.backend: Backend = model
        self.contract = self.backend.contract
        self.provider = self.backend.provider
        self.thresholds: tuple[float, float, float] = given or self.contract.thresholds
        self.tight = threshold == TIGHT
        self.flip, self.refine = flip, refine or self.contract.refine
        self.weights, self.slack = weights, slack
        try:
            most = self.contract.margin_rate / 4  # see `extended_box`
            if not 0 <= slack <= most:
                raise InputError(f"slack {slack}: expected 0 to {most:g}; the model sees no more around a box")
            # Shows at once whether the model runs and has these weights.
            self.run(self.batch(1, SizeClass.LARGE), SizeClass.LARGE)
        except BaseException:
            self.close()
            raise

    @property
    def most(self) -> int | None:
        """Boxes in the largest batch the model takes, None where there is no limit."""
        backend = self.backend
        return min(backend.most(size) for size in SizeClass) if isinstance(backend, DeviceBackend) else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the model runs, such as that CUDA graphs could not be used."""
        return tuple(self.backend.notes)

    @property
    def precision(self) -> str:
        """In which it computes: the model's, unless the backend chose another for an FP32 model."""
        return self.backend.precision

    def frame(self, box: Sequence[float], width: int, height: int) -> Frame:
        """Where the crop of an XYXY box lies in a `width` x `height` picture; the box must lie inside it."""
        return make_frame(box, width, height, self._side(box), self.contract.margin_rate, self.slack)

    def frames(self, boxes: np.ndarray, sides: np.ndarray) -> Frames:
        """`frame` of many boxes at once, [n,4], each in a picture of the (width, height) at its place in `sides`."""
        contract = self.contract
        if contract.sizes is None:
            return make_frames(boxes, sides, contract.input_size, contract.margin_rate, self.slack)
        found = Frames.room(len(boxes), contract.input_size)
        own = np.array([self._side(box) for box in boxes.tolist()], np.int64)
        for side in contract.sides:
            at = np.flatnonzero(own == side)
            found.put(at, make_frames(boxes[at], sides[at], side, contract.margin_rate, self.slack))
        return found

    def _side(self, box: Sequence[float]) -> int:
        """Side of the crop of an XYXY box, pixels."""
        return self.contract.side(size_class((box[2] - box[0]) * (box[3] - box[1])))

    def batch(self, boxes: int, size: SizeClass) -> np.ndarray:
        """Room for the crops of `boxes` boxes of a size class: zeros [boxes,3,S,S], of the type the model takes."""
        side = self.contract.side(size)
        return np.zeros((boxes, 3, side, side), self.contract.input_dtype)

    def crop(self, picture: np.ndarray, frame: Frame, into: np.ndarray) -> None:
        """Cut one crop out of a picture, uint8 [H,W,3], whole or reduced, into one place [3,S,S] of a batch."""
        by = reduced_by(picture, frame.width, frame.height)
        into[...] = read_crop(picture, frame.extended, frame.size, by).transpose(2, 0, 1)

    def reduction(self, least: float) -> int:
        """See `geometry.crops.reduction`, for the crops of this model."""
        return reduction(least, self.contract.input_size, self.contract.margin_rate)

    def run(self, crops: np.ndarray, size: SizeClass, frames: Sequence[Frame] | Frames | None = None) -> np.ndarray:
        """Mask logits of a batch of crops of one size class, float32 [N,h,w]; refined only where `frames` are given."""
        logits = self.backend.run(crops, size, self.weights)
        if self.flip:
            mirrored = self.backend.run(np.ascontiguousarray(crops[..., ::-1]), size, self.weights)
            logits = (logits + mirrored[..., ::-1]) / 2
        logits = logits[:, 0]
        return np.stack([self.refined(*one) for one in zip(logits, crops, frames, strict=True)]) if frames else logits

    def refined(self, logits: np.ndarray, crop: np.ndarray, frame: Frame) -> np.ndarray:
        """Logits [h,w] as the mask is made of them, from those of the network and the crop [3,S,S]."""
        return refine_colour(logits, crop, frame) if self.refine == "color" else logits

    def threshold(self, logits: np.ndarray, frame: Frame) -> float:
        """Mask probability for one box."""
        return tight_threshold(logits, frame) if self.tight else self.thresholds[frame.size_class]

    def masks(self, logits: np.ndarray, frames: Sequence[Frame] | Frames, keep: bool = False) -> list[Mask]:
        """The mask of each box from its logits [n,h,w], of which a copy is kept with it if `keep`."""
        edges, quality = [], []
        for own, frame in zip(logits, frames, strict=True):
            threshold = self.threshold(own, frame)
            edges.append(edges_from_logits(own, frame, threshold))
            quality.append(soft_iou(own, frame, threshold))
        counts = np.array([len(one) for one in edges], np.int64)
        rles, areas = rles_from_edges(np.concatenate(edges), counts, Frames.of(frames).sides)
        kept = [own.copy() for own in logits] if keep else [None] * len(logits)
        return [Mask(*one) for one in zip(rles, areas, quality, kept, strict=True)]

    def close(self) -> None:
        """Free the model."""
        self.backend.close()


def check_device(device: object) -> None:
    """InputError for what is no name of a device at all; which names there are, the backend knows."""
    if not isinstance(device, str):
        raise InputError(f'device {device!r}: expected a name such as "auto", "cpu" or "cuda:1"')


def batch_size(wanted: int | None, most: int | None) -> int:
    """Boxes in a batch: what is wanted, or what suits a model that takes `most` (None: any number)."""
    if wanted is None:
        return DEFAULT_BATCH if most is None else min(most, LARGEST_BATCH)
    if not isinstance(wanted, Integral) or wanted < 1:
        raise InputError(f"batch {wanted}: expected 1 or more")
    if most is not None and wanted > most:
        raise InputError(f"batch {wanted}: the engine takes up to {most}; build it with a larger --batch")
    return wanted


def _three(threshold: float | Sequence[float] | str) -> tuple[float, float, float]:
    values: tuple[Any, ...] = tuple(threshold) if isinstance(threshold, Sequence) else (threshold,) * 3
    if len(values) != 3 or not all(isinstance(v, Real) and 0 <= float(v) < 1 for v in values):
        raise InputError(
            f"threshold {threshold}: expected a number from 0 to below 1, three (small, medium, large), or {TIGHT}"
        )
    small, medium, large = (float(v) for v in values)
    return small, medium, large
