"""`Labeler`: masks for the boxes of one picture, from Python. For a whole document there is `run`."""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mal_trt.artifacts.contract import Contract
from mal_trt.backends import Backend
from mal_trt.backends.choice import AUTO, on_processor
from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.formats.images import ImageProblem, read_picture, to_rgb
from mal_trt.formats.pixels import open_picture
from mal_trt.geometry.boxes import SizeClass, clip_box
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import RLE, decode_rle, encode_rle
from mal_trt.labelling.masker import draw
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.predictor import Predictor, Threshold, batch_size
from mal_trt.labelling.second_pass import draw_again

FORMATS = ("xyxy", "xywh")
NOTHING = LocalMask(0, 0, np.zeros((0, 0), bool))
PictureLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray


@dataclass(frozen=True)
class Masks:
    """The masks of one picture, in the order of its boxes.

    - `local`: each mask in its own window of the picture.
    - `height`, `width`: of the picture, in pixels.
    - `quality`: how sure the network is of each mask, from 0 to 1: its soft IoU with its own probabilities.

    `len(masks)` is the number of boxes. Iterating or indexing gives masks as bool [height,width], a slice bool
    [n,height,width].
    """

    local: tuple[LocalMask, ...]
    height: int
    width: int
    quality: tuple[float, ...] = ()

    @property
    def masks(self) -> np.ndarray:
        """All masks on the whole picture, bool [N,height,width]."""
        return self[:]

    @property
    def rle(self) -> list[RLE]:
        """All masks as COCO's compressed RLE, {"size": [height, width], "counts": str}."""
        return [encode_rle(mask, self.height, self.width) for mask in self.local]

    @property
    def areas(self) -> np.ndarray:
        """Foreground pixels of each mask, int64 [N]."""
        return np.array([mask.area for mask in self.local], np.int64)

    def __len__(self) -> int:
        return len(self.local)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if not isinstance(index, slice):
            return self.local[index].full(self.height, self.width)
        found = [mask.full(self.height, self.width) for mask in self.local[index]]
        return np.stack(found) if found else np.zeros((0, self.height, self.width), bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (mask.full(self.height, self.width) for mask in self.local)


class Labeler:
    """A model that draws masks for the boxes of one picture at a time.

        labeler = Labeler()
        result = labeler("photo.jpg", [[30, 40, 200, 260]])
        result.masks  # bool [1, height, width]

    - `model`: an .onnx file of `mal-trt export`, an engine, "bundled", or a backend of your own, which is closed with
      the `Labeler`. Also a checkpoint (.pth), which is exported into the user's cache the first time; that takes a
      while, and the extra `export`.
    - `device`: "cpu", "cuda", "cuda:1", or "auto", which takes CUDA where it really works.
    - `backend`: what runs the model: "onnxruntime", "openvino", "tensorrt", or "auto": TensorRT for an engine, ONNX
      Runtime for an .onnx file, but OpenVINO where it is installed and faster, see `docs/concepts/backends.md`.
    - `batch`: boxes that the network sees at once. None: 16, or on a GPU as many as the engine takes.
    - `crops`: where crops are cut and masks are made: "cpu", "gpu", or "auto", where the network runs.
    - `threshold`: a pixel belongs to the mask above this probability. One number, three for small, medium and large
      boxes, or "tight": for each box the highest one whose mask still fills it. None: what the model asks for.
    - `flip`: average with the mirrored crop. A little better, half as fast.
    - `refine`: "color" sharpens masks by the colours in the crop, "none" does not. None: what the model asks for.
    - `weights`: "student", "teacher" or "mixed", if the model carries both.
    - `threads`: threads of the processor. None: one for each core.
    - `decode`: "scaled" lets a JPEG file's own transform make it smaller where all of its boxes stay larger than what
      the network sees; "cpu" does not.
    - `slack`: how far masks may leave their boxes on each side, as a share of the box: for boxes that are drawn too
      small.
    - `second_pass`: draw each mask once more, as that of its own box: for boxes that are drawn too large. Half as
      fast.

    Use it as a context manager, or call `close`, to free the model. Any number of threads may call it. In another
    process, forked or sent to by pickle, it opens its model anew; a GPU does not survive a fork, so start processes
    with "spawn" there.
    """

    def __init__(
        self,
        model: str | Path | Backend = "bundled",
        device: str = "auto",
        *,
        batch: int | None = None,
        crops: str = "auto",
        threshold: Threshold = None,
        flip: bool = False,
        refine: str | None = None,
        weights: str | None = None,
        threads: int | None = None,
        slack: float = 0.0,
        second_pass: bool = False,
        decode: str = "cpu",
        backend: str = AUTO,
    ) -> None:
        self._given: dict[str, Any] = {
            **{"model": model, "device": device, "batch": batch, "crops": crops, "threshold": threshold, "flip": flip},
            **{"refine": refine, "weights": weights, "threads": threads, "slack": slack, "decode": decode},
            **{"backend": backend, "second_pass": second_pass},
        }
        self._lock = threading.Lock()
        self._closed = False
        self._open(**self._given)

    def _open(self, batch: int | None, crops: str, decode: str, second_pass: bool, **given: Any) -> None:
        self._predictor = Predictor(**given)
        try:
            self._batch = batch_size(batch, self._predictor.most)
            self._masker = open_masker(self._predictor, crops, decode)
            # The boxes of the second pass, which decide how small a picture may be decoded, are not known before.
            self._scaled, self._twice = decode == "scaled" and not second_pass, second_pass
        except BaseException:
            self._predictor.close()
            raise
        self._process = os.getpid()

    @property
    def contract(self) -> Contract:
        """What the model says about itself."""
        return self._predictor.contract

    @property
    def provider(self) -> str:
        """What really runs the model, such as "CPUExecutionProvider" or "OpenVINO (bf16)"."""
        return self._predictor.provider

    def __call__(self, picture: PictureLike, boxes: Any, format: str = "xyxy") -> Masks:
        """Draw the masks of the boxes in one picture.

        - `picture`: a file's path, its bytes, the file opened to be read, a Pillow image, or uint8 [H,W,3] RGB or
          [H,W] grey. Its pixels are taken as they are stored: an EXIF orientation is not applied.
        - `boxes`: numbers [N,4] in pixels of the picture, origin top left, the far sides not included.
        - `format`: "xyxy" (left, top, right, bottom) or "xywh" (left, top, width, height).

        Boxes are clipped to the picture. One that lies outside gets an empty mask. InputError for a picture that cannot
        be read, and for a box that is not finite or has no width or height.
        """
        self._open_here()
        pixels: np.ndarray | None = None
        if self._scaled and isinstance(picture, (str, Path)):
            with _told(picture), open(picture, "rb") as file:
                width, height = open_picture(file).size
        else:
            pixels = _pixels(picture)
            height, width = pixels.shape[:2]
        clipped = [clip_box(box, width, height) for box in checked_boxes(boxes, format)]
        if pixels is None:
            least = min((min(box[2] - box[0], box[3] - box[1]) for box in clipped if box), default=0)
            pixels = _pixels(picture, self._predictor.reduction(least))
        frames = {i: self._predictor.frame(box, width, height) for i, box in enumerate(clipped) if box}
        local, quality = [NOTHING] * len(clipped), [0.0] * len(clipped)
        for size in SizeClass:
            places = [i for i, frame in frames.items() if frame.size_class is size]
            for start in range(0, len(places), self._batch):
                part = places[start : start + self._batch]
                own = Frames.of([frames[place] for place in part])
                masks = draw(self._masker, [pixels], own, size)
                if self._twice:
                    _, masks = draw_again(self._predictor, self._masker, [pixels], own, masks)
                for place, mask in zip(part, masks, strict=True):
                    local[place], quality[place] = decode_rle(mask.rle), mask.quality
        return Masks(tuple(local), height, width, tuple(quality))

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        if self._process == os.getpid():
            self._masker.close()
            self._predictor.close()

    def _open_here(self) -> None:
        """Open the model again in a process that was forked meanwhile: its threads have stayed behind, and whoever
        waits for them waits for ever."""
        with self._lock:
            named = isinstance(self._given["model"], (str, Path))
            if self._process == os.getpid() or self._closed or not named:
                return
            if not on_processor(self.provider):
                raise RunError(
                    f"the model runs on {self.provider}, which does not survive a fork; start processes with "
                    'multiprocessing.get_context("spawn"), or open a Labeler in each'
                )
            self._left = (self._predictor, self._masker)  # freeing them would wait too
            self._open(**self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        if not isinstance(self._given["model"], (str, Path)):
            raise TypeError("a Labeler with a backend of its own cannot be sent to another process; open it there")
        return _opened, (self._given,)

    def __enter__(self) -> Labeler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(given: dict[str, Any]) -> Labeler:
    return Labeler(**given)


def _pixels(picture: Any, by: int = 1) -> np.ndarray:
    """uint8 [H,W,3] RGB of whatever the caller has. by: see `ImageSource.load`, for a file."""
    if hasattr(picture, "__array__") and not isinstance(picture, (Image.Image, np.ndarray)):
        picture = _array(picture, "picture", None)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            raise InputError(
                f"picture: an array of {picture.dtype} {list(picture.shape)}; expected uint8 [H,W,3] RGB or [H,W]"
            )
        if not picture.size:
            raise InputError("picture: an array without pixels")
        return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    with _told(picture):
        if isinstance(picture, Image.Image):
            picture.load()
            # Of a copy, since `to_rgb` drops the transparency from it.
            return to_rgb(picture.copy() if "transparency" in picture.info else picture)
        if isinstance(picture, (bytes, bytearray, memoryview)):
            return read_picture(io.BytesIO(picture), by=by)
        if hasattr(picture, "read"):
            return read_picture(io.BytesIO(picture.read()), by=by)
        if isinstance(picture, (str, os.PathLike)):
            with open(picture, "rb") as file:
                return read_picture(file, by=by)
    raise InputError(
        f"picture: {type(picture).__name__}; expected a file's path or bytes, a Pillow image, or uint8 [H,W,3] RGB or "
        "[H,W]" + (" (OpenCV's imread gives None for a file that it cannot read)" if picture is None else "")
    )


@contextmanager
def _told(picture: Any) -> Iterator[None]:
    """What goes wrong with a picture inside becomes an InputError."""
    where = picture if isinstance(picture, (str, os.PathLike)) else "picture"
    try:
        yield
    except ImageProblem as problem:
        raise InputError(f"{where}: {problem}") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise InputError(f"{where}: cannot be read ({why})") from None


def _array(given: Any, name: str, kind: Any) -> np.ndarray:
    """Numbers that the caller has as an array, PyTorch's with gradients and on a GPU too."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    if isinstance(given, Iterator):
        given = list(given)
    try:
        return np.asarray(given, kind)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected numbers" + (" of shape [N,4]" if name == "boxes" else "")) from None


def checked_boxes(boxes: Any, format: str = "xyxy") -> list[tuple[float, float, float, float]]:
    """Boxes [N,4] of a format of FORMATS as XYXY; InputError says which is none."""
    if format not in FORMATS:
        raise InputError(f"box format {format!r}: expected one of {', '.join(FORMATS)}")
    array = _array(boxes, "boxes", np.float64)
    if array.size == 0:
        return []
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes: shape {list(array.shape)}; expected [N,4], for one box [[x0, y0, x1, y1]]")
    checked = []
    for index, (x0, y0, x1, y1) in enumerate(array.tolist()):
        if format == "xywh":
            x1, y1 = x0 + x1, y0 + y1
        if not all(math.isfinite(v) for v in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
            raise InputError(f"box {index}: {array[index].tolist()} ({format}) is not finite or has no width or height")
        checked.append((x0, y0, x1, y1))
    return checked
