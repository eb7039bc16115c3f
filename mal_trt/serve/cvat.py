"""Auto-annotation functions for CVAT, loaded by cvat-cli: masks for boxes of a file, or for the box that is just drawn.

They run where cvat-cli runs, with the model in that process; no server of ours is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvat
import cvat_sdk.models as models
import PIL.Image
from cvat_sdk.masks import encode_mask

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.ids import identity
from mal_trt.formats.images import ImageProblem
from mal_trt.formats.picture_names import PictureNames
from mal_trt.formats.reading.nowhere import Nowhere
from mal_trt.geometry.boxes import clip_box
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.labelling.document_rows import parse_bbox
from mal_trt.labelling.labeler import Labeler
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_lines

SIMPLIFY = 1.0  # pixels, where CVAT wants polygons


def create(
    boxes: str | None = None,
    images: str | None = None,
    model: str = "bundled",
    device: str = "auto",
    boxes_format: str | None = None,
    split: str | None = None,
    **options: Any,
) -> DetectBoxes | DrawBox:
    """What cvat-cli calls with its `-p` parameters.

    boxes: a file, folder or data set with the boxes of the task's pictures, in any format that is read; then the
    function annotates tasks. Without it, the function is for an agent: one drawn box becomes one mask. images: the
    pictures, for formats of boxes that need their sizes. options: further ones of `Labeler`. InputError if something
    cannot be used.
    """
    if boxes is None:
        return DrawBox(Labeler(model, device, **options))
    return DetectBoxes(Boxes(boxes, boxes_format, split), images, Labeler(model, device, **options))


class DetectBoxes:
    """Masks for the boxes that a file has for each picture: CVAT's interface DetectionFunction."""

    def __init__(self, boxes: Boxes, images: str | None, labeler: Labeler) -> None:
        self._labeler = labeler
        self._boxes: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
        document = boxes.document(_source(boxes, images))
        names: dict[Any, str] = {}
        for record in document["images"]:
            names[identity(record.get("id"))] = str(record.get("file_name") or "")
        classes = {identity(record.get("id")): str(record.get("name")) for record in document.get("categories") or []}
        for known in (names, classes):
            known.pop(None, None)
        if not classes:
            raise InputError(f"{boxes}: has no classes; CVAT needs the names of its labels")
        self._labels = dict.fromkeys(classes.values(), 0)
        for number, name in enumerate(self._labels, 1):
            self._labels[name] = number
        for record in document["annotations"]:
            picture, kind = identity(record.get("image_id")), identity(record.get("category_id"))
            bbox = parse_bbox(record.get("bbox"))
            if picture in names and kind in classes and not isinstance(bbox, str):
                self._boxes[names[picture]].append((self._labels[classes[kind]], list(bbox)))
        self._names = PictureNames(names.values(), lambda name: True)
        self.spec = cvat.DetectionFunctionSpec(
            labels=[cvat.label_spec(name, number) for name, number in self._labels.items()]
        )

    def detect(
        self, context: cvat.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """The masks of one frame, or polygons if the context asks for them; none for a picture without boxes."""
        try:
            found = self._boxes.get(self._names.match(context.frame_name).name, [])
        except ImageProblem:
            return []
        width, height = image.size
        inside = [(label, box) for label, box in found if clip_box(_xyxy(box), width, height)]
        masks = self._labeler(image, [box for _, box in inside], "xywh")
        least = context.conf_threshold or 0.0
        shapes: list[models.LabeledShapeRequest] = []
        for (label, _), local, quality in zip(inside, masks.local, masks.quality, strict=True):
            if not local.mask.size or quality < least:
                continue
            if context.conv_mask_to_poly:
                group = len(shapes) + 1
                lines = edge_lines(local, Options(simplify=SIMPLIFY), FormatLoss())
                together = {"group": group} if len(lines) > 1 else {}
                shapes += [cvat.polygon(label, line.reshape(-1).tolist(), **together) for line in lines]
            else:
                shapes.append(cvat.mask(label, _encoded(local)))
        return shapes


class DrawBox:
    """The mask of a box that was just drawn: CVAT's interface InteractionFunction."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler = labeler
        self.spec = cvat.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=1)

    def detect(
        self,
        context: cvat.InteractionFunctionContext,
        pp_image: PIL.Image.Image,
        prompts: cvat.InteractionPrompts,
    ) -> list[cvat.InteractionResultShape]:
        """The mask in the box; points are not looked at. Nothing for a box outside the picture."""
        if prompts.bounding_box is None:
            return []
        (x0, y0), (x1, y1) = prompts.bounding_box
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        if clip_box(box, *pp_image.size) is None:
            return []
        masks = self._labeler(pp_image, [box])
        if not masks.local[0].mask.size:
            return []
        confidence = models.AttributeValRequest(
            spec_id=int(cvat.InteractionResultAttributes.CONFIDENCE), value=str(masks.quality[0])
        )
        return [cvat.InteractionResultShape(type="mask", points=_encoded(masks.local[0]), attributes=[confidence])]


def _encoded(local: LocalMask) -> list[float]:
    """CVAT's run lengths of a mask's window, and where it lies."""
    *runs, x0, y0, x1, y1 = encode_mask(local.mask, [0, 0, local.mask.shape[1], local.mask.shape[0]])
    return [*map(float, runs), x0 + local.x0, y0 + local.y0, x1 + local.x0, y1 + local.y0]


def _source(boxes: Boxes, images: str | None) -> Any:
    from mal_trt.formats.images import open_images

    if images is not None:
        return open_images(images)
    return Nowhere() if boxes.streamed else open_images(boxes.home())


def _xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height
