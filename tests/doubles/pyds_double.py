"""A stand-in of DeepStream: the part of `pyds` that the probes use, and an nvinfer that cuts objects as its source says
(near sides up to even pixels, lengths down, nothing outside the frame) and runs the package's model by its config.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from mal_trt.geometry.crops import read_crop

TENSORS, OTHER = object(), object()


@dataclass
class GList:
    """A linked list as pyds shows it: `data` is to be cast."""

    data: Any
    next: GList | None = None


def glist(values: list[Any]) -> GList | None:
    first = None
    for value in reversed(values):
        first = GList(("capsule", value), first)
    return first


def objects(frame: Any) -> list[Any]:
    found, entry = [], frame.obj_meta_list
    while entry is not None:
        found.append(entry.data[1])
        entry = entry.next
    return found


def frame_meta(source: int, number: int, rects: list[tuple[float, float, float, float]]) -> Any:
    """A frame with objects of a detector of id 1."""
    items = [
        SimpleNamespace(
            rect_params=SimpleNamespace(left=x, top=y, width=w, height=h),
            object_id=10 + index,
            class_id=index % 3,
            unique_component_id=1,
            obj_user_meta_list=glist([SimpleNamespace(base_meta=SimpleNamespace(meta_type=OTHER))]),
        )
        for index, (x, y, w, h) in enumerate(rects)
    ]
    return SimpleNamespace(pad_index=source, frame_num=number, obj_meta_list=glist(items))


@dataclass
class Buffer:
    """A batch of frames, each with its picture, uint8 [H,W,3]."""

    frames: list[Any]
    pictures: list[np.ndarray]

    def __hash__(self) -> int:
        return id(self)


@dataclass
class Nvinfer:
    """What runs between the two probes."""

    config: Path
    cut: list[tuple[int, int, int, int]] = field(default_factory=list)
    pool: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        import onnxruntime

        parser = configparser.ConfigParser()
        parser.read(self.config)
        self.keys = dict(parser["property"])
        assert (self.keys["process-mode"], self.keys["network-type"], self.keys["output-tensor-meta"]) == (
            "2",
            "100",
            "1",
        )
        self.session = onnxruntime.InferenceSession(str(self.config.parent / self.keys["onnx-file"]))
        (only,) = self.session.get_inputs()
        assert only.type == "tensor(float)", "nvinfer feeds float32 and one input"

    def run(self, buffer: Buffer) -> None:
        _, side, _ = map(int, self.keys["infer-dims"].split(";"))
        for frame, picture in zip(buffer.frames, buffer.pictures, strict=True):
            for item in objects(frame):
                if item.unique_component_id != int(self.keys["operate-on-gie-id"]):
                    continue
                rect = item.rect_params
                left, top = ((int(v) + 1) // 2 * 2 for v in (rect.left, rect.top))
                width, height = (int(v) // 2 * 2 for v in (rect.width, rect.height))
                box = (left, top, left + width, top + height)
                assert min(box) >= 0 and box[2] <= picture.shape[1] and box[3] <= picture.shape[0], f"{box} leaves"
                if not width or not height:
                    continue
                self.cut.append(box)
                crop = read_crop(picture, box, side).transpose(2, 0, 1)[None]
                pixels = crop.astype(np.float32) * np.float32(self.keys["net-scale-factor"])
                (logits,) = self.session.run([self.keys["output-blob-names"]], {"image": pixels})
                self.pool.append(np.ascontiguousarray(logits[0]))
                self._attach(item, self.pool[-1])

    def take_back(self) -> None:
        """The buffers of tensors go back to the pool, and other frames are written there."""
        for tensor in self.pool:
            tensor[...] = np.nan

    def _attach(self, item: Any, logits: np.ndarray) -> None:
        dims = SimpleNamespace(d=np.array([*logits.shape, 0, 0, 0, 0, 0], np.uint32), numDims=logits.ndim)
        layer = SimpleNamespace(layerName="logits", dataType="FLOAT", inferDims=dims, buffer=("capsule", logits))
        mine, other = (
            SimpleNamespace(unique_id=number, num_output_layers=1, layers=[layer])
            for number in (int(self.keys["gie-unique-id"]), 77)
        )
        metas = [
            SimpleNamespace(base_meta=SimpleNamespace(meta_type=TENSORS), user_meta_data=("capsule", tensors))
            for tensors in (other, mine)
        ]
        item.obj_user_meta_list = glist([item.obj_user_meta_list.data[1], *metas])


def pyds_module(batches: dict[int, Any]) -> ModuleType:
    """The module; batches: hash of a buffer -> the buffer."""
    module: Any = ModuleType("pyds")
    cast = SimpleNamespace(cast=lambda data: data[1])
    module.NvDsFrameMeta = module.NvDsObjectMeta = module.NvDsUserMeta = module.NvDsInferTensorMeta = cast
    module.NvDsMetaType = SimpleNamespace(NVDSINFER_TENSOR_OUTPUT_META=TENSORS)
    module.NvDsInferDataType = SimpleNamespace(FLOAT="FLOAT", HALF="HALF")
    module.gst_buffer_get_nvds_batch_meta = lambda number: (
        SimpleNamespace(frame_meta_list=glist(batches[number].frames)) if number in batches else None
    )
    module.get_nvds_LayerInfo = lambda tensors, index: tensors.layers[index]
    module.get_ptr = lambda capsule: capsule[1].ctypes.data
    return module  # type: ignore[no-any-return]


class Gst:
    """The part of gi.repository.Gst that `attach` uses."""

    PadProbeType = SimpleNamespace(BUFFER="buffer")
    PadProbeReturn = SimpleNamespace(OK="ok")


class Element:
    """An nvinfer element as GStreamer shows it: two pads that take probes; `push` sends a buffer through it."""

    def __init__(self, nvinfer: Nvinfer) -> None:
        self.nvinfer = nvinfer
        self.probes: dict[str, Any] = {}

    def get_static_pad(self, name: str) -> Any:
        def add_probe(kind: str, probe: Any, data: Any) -> None:
            assert kind == Gst.PadProbeType.BUFFER
            self.probes[name] = lambda buffer: probe(None, SimpleNamespace(get_buffer=lambda: buffer), data)

        return SimpleNamespace(add_probe=add_probe)

    def push(self, buffer: Buffer) -> None:
        assert self.probes["sink"](buffer) == "ok"
        self.nvinfer.run(buffer)
        assert self.probes["src"](buffer) == "ok"
        self.nvinfer.take_back()
