"""The pictures a benchmark runs on: those given, or example photos. Calibration draws its own: `calibration.sample`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.formats.boxes import Boxes, BoxesLike, as_boxes, read_coco
from mal_trt.formats.images import ImageSource, open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.hints import nothing_usable
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.plan import write_plan

PACKAGE = "mal_trt.examples"
# The example boxes are few, so each photo is listed, and decoded, this many times.
COPIES = 16
CROPS = 64  # different crops in a batch at most; a larger one holds them several times


@dataclass(frozen=True)
class Samples:
    """Pictures and boxes to measure with. name: for people. drawn: whether the boxes have drawn masks."""

    name: str
    images: str | Path
    boxes: Boxes
    drawn: bool


def choose_samples(
    images: str | Path | None,
    boxes: BoxesLike | None,
    annotations: BoxesLike | None,
    count: int | None,
    folder: Path,
) -> Samples:
    """The samples that the options name; without any the packaged photos, COPIES times over.

    images: None where the boxes say it. boxes, annotations: one of them is given; annotations have drawn masks. count:
    how many boxes, spread evenly over the document; None is all. folder: for a document made here. InputError if they
    do not fit.
    """
    document = annotations if annotations is not None else boxes
    if boxes is not None and annotations is not None:
        raise InputError("give either boxes (--boxes) or drawn masks (--annotations), which have boxes too")
    if document is None:
        if images is not None:
            raise InputError("pictures and boxes belong together: give one of --boxes, --annotations too, or none")
        home = Path(str(resources.files(PACKAGE)))
        made = _repeated(read_coco(home / "boxes.json"), COPIES)
        path = _write(made if count is None else _some(made, count), folder)
        return Samples("example photos", home / "photos", Boxes(path), drawn=False)
    document = as_boxes(document)
    pictures = document.home() if images is None else images
    content = document.document(open_images(pictures))
    if annotations is not None and not any(record.get("segmentation") for record in content["annotations"]):
        raise InputError(f"{document}: no box has a drawn mask; give it as --boxes to measure without")
    if count is not None:
        few = Boxes(_write(_some(content, count), folder), rescale=document.rescale)
        return Samples(str(document), pictures, few, drawn=annotations is not None)
    return Samples(str(document), pictures, document, drawn=annotations is not None)


@dataclass(frozen=True)
class Plan:
    """What `label` would make of samples. shares: of the size classes among the boxes, adding up to 1. crops: file,
    width, height and clipped XYXY box of CROPS of them at most, in picture pixels.
    """

    boxes: int
    pictures: int
    shares: Mapping[SizeClass, float]
    crops: tuple[tuple[str, int, int, tuple[float, float, float, float]], ...]


def plan_samples(samples: Samples, source: ImageSource, folder: Path) -> Plan:
    """Plan the samples as `label` does, by a journal in a folder; InputError if no box can be used."""
    journal = Journal(folder / "plan")
    try:
        write_plan(journal, {}, samples.boxes, None, source, 1)
        boxes, _ = journal.planned_boxes()
        if not boxes:
            raise NothingDone(nothing_usable(journal, source, samples.name, samples.images, "measured with"))
        shares = {size: number / boxes for size, number in journal.sizes().items()}
        crops = tuple((one.file_name, one.width, one.height, one.xyxy) for one in journal.spread(CROPS))
        return Plan(boxes, journal.planned_pictures(), shares, crops)
    finally:
        journal.close()


def _write(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _some(document: dict[str, Any], count: int) -> dict[str, Any]:
    """`count` of the boxes, evenly spread, and the pictures they lie in."""
    records, total = document["annotations"], len(document["annotations"])
    count = min(count, total)
    kept = [record for place, record in enumerate(records) if (place + 1) * count // total > place * count // total]
    used = {json.dumps(record.get("image_id")) for record in kept}
    images = [image for image in document["images"] if json.dumps(image.get("id")) in used]
    return {**document, "images": images, "annotations": kept}


def _repeated(document: dict[str, Any], times: int) -> dict[str, Any]:
    """Every picture, with its boxes, several times under ids of its own."""
    images, boxes = document["images"], document["annotations"]
    pictures, records = max(image["id"] for image in images), max(record["id"] for record in boxes)
    return {
        **document,
        "images": [{**image, "id": image["id"] + pictures * n} for n in range(times) for image in images],
        "annotations": [
            {**record, "id": record["id"] + records * n, "image_id": record["image_id"] + pictures * n}
            for n in range(times)
            for record in boxes
        ],
    }
