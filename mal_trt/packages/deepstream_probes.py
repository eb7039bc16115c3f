"""The two probes around nvinfer in DeepStream: a margin for each object on the way in, masks on the way out.

Imported by pipelines alone, which have DeepStream's `pyds`. nvinfer's config is written by `deepstream`.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyds

from mal_trt.artifacts.contract import Contract
from mal_trt.backends.signature import LOGITS
from mal_trt.base.errors import RunError
from mal_trt.geometry.boxes import clip_box, extended_box
from mal_trt.geometry.crops import Frame, inner_box
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.quality import soft_iou
from mal_trt.geometry.rle import RLE

Rect = tuple[float, float, float, float]
KEPT = 256  # frames that went in and did not come out: dropped ones must not fill the memory


@dataclass(frozen=True)
class ObjectMask:
    """The mask of one object. source: `pad_index` of its stream; frame: `frame_num`. bbox: x, y, width, height in
    pixels of the frame. rle: COCO's compressed RLE of the whole frame. quality: see `geometry.quality.soft_iou`."""

    source: int
    frame: int
    object_id: int
    class_id: int
    bbox: Rect
    rle: RLE
    quality: float


class MalProbes:
    """Probes for one nvinfer. on_masks is called with the masks of each frame that has objects.

    folder: what `mal-trt package deepstream` wrote. width, height: of the frames that nvinfer sees, as nvstreammux
    scales them. threshold: mask probability; None is the model's own.

    A crop is MAL's, but for three things that nvinfer cannot do: it ends at the frame's border instead of wrapping
    around it, its sides are even, and it is scaled by the GPU's filter. The paste knows the first two.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        height: int,
        on_masks: Callable[[list[ObjectMask]], None],
        threshold: float | None = None,
    ) -> None:
        path = folder / "contract.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        self._contract = Contract.from_document(document["mal_trt"], str(path))
        self._gie_id = int(document["gie_id"])
        self._size = width, height
        self._on_masks, self._threshold = on_masks, threshold
        self._waiting: dict[tuple[int, int], list[tuple[Rect, Frame | None]]] = {}
        self._lock = Lock()  # nvinfer's input and output are different threads

    def attach(self, nvinfer: Any) -> None:
        """Add both probes to an nvinfer element."""
        from gi.repository import Gst

        for pad, probe in (("sink", self.widen), ("src", self.collect)):
            nvinfer.get_static_pad(pad).add_probe(Gst.PadProbeType.BUFFER, self._pad_probe(probe), None)

    def widen(self, buffer: Any) -> None:
        """Give each object of a buffer the rectangle that nvinfer is to cut."""
        for frame_meta in _frames(buffer):
            entries = []
            for item in _objects(frame_meta):
                rect = item.rect_params
                before = (rect.left, rect.top, rect.width, rect.height)
                frame = self.frame(before)
                entries.append((before, frame))
                if frame is not None:
                    left, top, right, bottom = frame.extended
                    rect.left, rect.top, rect.width, rect.height = left, top, right - left, bottom - top
            with self._lock:
                self._waiting[_key(frame_meta)] = entries
                while len(self._waiting) > KEPT:
                    del self._waiting[next(iter(self._waiting))]

    def collect(self, buffer: Any) -> None:
        """Give the objects of a buffer their boxes back, and hand on their masks."""
        for frame_meta in _frames(buffer):
            with self._lock:
                entries = self._waiting.pop(_key(frame_meta), [])
            masks = []
            for item, (before, frame) in zip(_objects(frame_meta), entries, strict=False):
                rect = item.rect_params
                rect.left, rect.top, rect.width, rect.height = before
                logits = _logits(item, self._gie_id)
                if frame is None or logits is None:
                    continue
                threshold = self._contract.thresholds[frame.size_class]
                threshold = threshold if self._threshold is None else self._threshold
                rle, quality = rle_from_logits(logits, frame, threshold), soft_iou(logits, frame, threshold)
                whose = (frame_meta.pad_index, frame_meta.frame_num, item.object_id, item.class_id)
                masks.append(ObjectMask(*whose, before, rle, quality))
            if masks:
                self._on_masks(masks)

    def frame(self, rect: Rect) -> Frame | None:
        """The crop of an object's left, top, width, height; None where it has no pixel inside the frame."""
        width, height = self._size
        left, top, across, down = rect
        box = clip_box((left, top, left + across, top + down), width, height)
        if box is None:
            return None
        x0, y0, x1, y1 = extended_box(box, (self._contract.margin_rate / 2,) * 4)
        (x0, x1), (y0, y1) = _even(x0, x1, width), _even(y0, y1, height)
        if x1 <= x0 or y1 <= y0:
            return None
        extended, size = (x0, y0, x1, y1), self._contract.input_size
        return Frame(box, extended, inner_box(box, extended, width, height, size), width, height, size)

    def _pad_probe(self, probe: Callable[[Any], None]) -> Callable[..., Any]:
        from gi.repository import Gst

        def run(pad: Any, info: Any, data: Any) -> Any:
            buffer = info.get_buffer()
            if buffer:
                probe(buffer)
            return Gst.PadProbeReturn.OK

        return run


def _even(low: int, high: int, limit: int) -> tuple[int, int]:
    """low..high within 0..limit and outwards to even numbers: nvinfer rounds what it cuts, and leaves these alone."""
    low, high = max(low, 0) // 2 * 2, (min(high, limit) + 1) // 2 * 2
    return low, high if high <= limit else high - 2


def _key(frame_meta: Any) -> tuple[int, int]:
    return frame_meta.pad_index, frame_meta.frame_num


def _frames(buffer: Any) -> Iterator[Any]:
    batch = pyds.gst_buffer_get_nvds_batch_meta(hash(buffer))
    return _listed(batch.frame_meta_list, pyds.NvDsFrameMeta) if batch else iter(())


def _objects(frame_meta: Any) -> Iterator[Any]:
    return _listed(frame_meta.obj_meta_list, pyds.NvDsObjectMeta)


def _listed(entry: Any, kind: Any) -> Iterator[Any]:
    """What a GList of pyds holds. Its end is None, or StopIteration."""
    while entry is not None:
        try:
            value = kind.cast(entry.data)
        except StopIteration:
            return
        yield value
        try:
            entry = entry.next
        except StopIteration:
            return


def _logits(item: Any, gie_id: int) -> np.ndarray | None:
    """Float32 [h,w] that one nvinfer gave for an object; None if it gave none."""
    for user_meta in _listed(item.obj_user_meta_list, pyds.NvDsUserMeta):
        if user_meta.base_meta.meta_type != pyds.NvDsMetaType.NVDSINFER_TENSOR_OUTPUT_META:
            continue
        tensors = pyds.NvDsInferTensorMeta.cast(user_meta.user_meta_data)
        if tensors.unique_id != gie_id:
            continue
        for index in range(tensors.num_output_layers):
            layer = pyds.get_nvds_LayerInfo(tensors, index)
            if layer.layerName != LOGITS:
                continue
            if layer.dataType != pyds.NvDsInferDataType.FLOAT:
                raise RunError(f"{LOGITS}: of type {layer.dataType}, expected float32; build the engine of the package")
            dims = [int(side) for side in layer.inferDims.d[: layer.inferDims.numDims]]
            pointer = ctypes.cast(pyds.get_ptr(layer.buffer), ctypes.POINTER(ctypes.c_float))
            # The buffer is nvinfer's and goes back to its pool.
            return np.array(np.ctypeslib.as_array(pointer, shape=(dims[-2], dims[-1])))
    return None
