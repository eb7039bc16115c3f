"""Large input in bounded memory: a 200 MB document, many boxes, a 400-megapixel picture. Each run is a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Write = Callable[..., Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc"),
]

SCRIPT = """
import json, sys
from mal_trt import label
images, boxes, model, out = sys.argv[1:]
summary = label(images, boxes, model, out, batch=16, device="cpu", threads=1, progress=False)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([summary.labelled, summary.skipped, int(peak.split()[1]) / 1024]))
"""


def peak_of(images: Path, boxes: Path, model: Path, out: Path) -> tuple[int, dict[str, int], float]:
    """(labelled, skipped by reason, peak memory in MB) of a run in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, str(images), str(boxes), str(model), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    labelled, skipped, peak = json.loads(done.stdout)
    return labelled, skipped, peak


def test_a_200_mb_document(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    small = peak_of(images, boxes, tiny_model(), tmp_path / "small.json")
    document = json.loads(boxes.read_text())
    with open(boxes, "w") as file:
        file.write('{"images": ' + json.dumps(document["images"]) + ', "annotations": [\n')
        for record in document["annotations"]:
            file.write(json.dumps(record) + ",\n")
        text = '{"id": %d, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4], "note": "' + "x" * 400 + '"}'
        index = 0
        while file.tell() < 200_000_000:
            file.write(",\n".join(text % (1000 + index + i) for i in range(1000)) + ",\n")
            index += 1000
        file.write(text % 999 + "]}")
    large = peak_of(images, boxes, tiny_model(), tmp_path / "large.json")
    assert large[:2] == (18, {"unknown image_id": index + 1})
    assert large[2] < small[2] + 60
    skipped = json.loads((tmp_path / "large.skipped.json").read_text())
    assert len(skipped) == index + 1


def test_memory_does_not_grow_with_the_boxes(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    """40 times the boxes on the same pictures; also the case of very many boxes on one picture."""
    images, boxes = data_set(pictures=4)
    document = json.loads(boxes.read_text())
    records = document["annotations"]
    peaks = []
    for count in (500, 20_000):
        document["annotations"] = [{**records[i % len(records)], "id": i} for i in range(count)]
        boxes.write_text(json.dumps(document))
        labelled, _, peak = peak_of(images, boxes, tiny_model(), tmp_path / f"{count}.json")
        assert labelled == count
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 60


def test_20000_by_20000(tmp_path: Path, tiny_model: Write) -> None:
    """Decoding needs Pillow's 4 bytes a pixel and our 3, and nothing else of that size."""
    side = 20_000
    images = tmp_path / "pictures"
    images.mkdir()
    picture = Image.new("RGB", (side, side), (20, 20, 20))
    picture.paste((230, 230, 230), (4000, 5000, 14000, 16000))
    picture.save(images / "huge.jpg", quality=50)
    del picture
    records = [[3000, 4000, 13000, 14000], [0, 0, side, side], [13990, 15990, 20, 20]]
    document = {
        "images": [{"id": 1, "file_name": "huge.jpg", "width": side, "height": side}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": bbox} for i, bbox in enumerate(records)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    labelled, skipped, peak = peak_of(images, tmp_path / "boxes.json", tiny_model(), tmp_path / "labels.json")
    assert (labelled, skipped) == (3, {})
    assert peak < 7 * side * side / 2**20 + 700
    areas = [a["area"] for a in json.loads((tmp_path / "labels.json").read_text())["annotations"]]
    for area, truth in zip(areas, (110e6, 110e6, 100), strict=True):
        assert abs(area / truth - 1) < 0.2
