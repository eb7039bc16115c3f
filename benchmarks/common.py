"""What the measurements share: the boxes they run on, and the JSON they leave."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.formats.images import open_images
from mal_trt.geometry.boxes import clip_box

Box = tuple[float, float, float, float]


def boxes_by_picture(
    images: Path, boxes: Path, count: int | None = None
) -> Iterator[tuple[dict[str, Any], np.ndarray, list[tuple[dict[str, Any], Box]]]]:
    """Each image record of a COCO document, its pixels, and its annotations with their clipped XYXY boxes.

    Stops after `count` boxes.
    """
    document = json.loads(boxes.read_text())
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    source = open_images(images)
    left = sys.maxsize if count is None else count
    for image in document["images"]:
        if not by_image.get(image["id"]) or left <= 0:
            continue
        picture = source.load(image["file_name"])
        height, width = picture.shape[:2]
        found = []
        for annotation in by_image[image["id"]]:
            x, y, w, h = annotation["bbox"]
            if (box := clip_box((x, y, x + w, y + h), width, height)) is not None and left > 0:
                found.append((annotation, box))
                left -= 1
        yield image, picture, found


def first_boxes(images: Path, boxes: Path, count: int, out: Path) -> int:
    """Write a COCO document with the first `count` usable boxes; returns how many there are."""
    document = json.loads(boxes.read_text())
    kept = [a for _, _, found in boxes_by_picture(images, boxes, count) for a, _ in found]
    used = {a["image_id"] for a in kept}
    document["images"] = [i for i in document["images"] if i["id"] in used]
    document["annotations"] = kept
    out.write_text(json.dumps(document))
    return len(kept)


def hardware() -> str:
    """Processor, cores this process may use, memory, Python: `Xeon ..., 2 cores, 8 GB, Python 3.11`."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = (x for x in cpuinfo.read_text().splitlines() if x.startswith("model name"))
        cpu = next((x.split(":", 1)[1].strip() for x in named), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB"
    return f"{cpu}, {cores} cores{memory}, Python {platform.python_version()}"


def save(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures with date, hardware and the command, its folders cut to their last names."""
    if path is None:
        return
    words = [_short(word) for word in sys.argv]
    head = {
        "command": "python " + shlex.join(words),
        "date": date.today().isoformat(),
        "hardware": hardware(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, **figures}, indent=1) + "\n")


def _short(word: str) -> str:
    """A path, or NAME=PATH, without its folders if they are absolute."""
    name, equals, path = word.rpartition("=")
    return name + equals + Path(path).name if os.path.isabs(path) else word
