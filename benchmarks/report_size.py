"""What a report of many labels costs: seconds, memory and bytes of the folder.

python benchmarks/report_size.py --images DIR|TAR --labels labels.json --count 5000 [--threads N] [--json FILE]

The labels are those that `label` wrote; pictures and their masks are repeated until there are `count` of them, each
picture read again.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from common import save

from mal_trt import write_report


def repeated(document: dict[str, Any], count: int) -> dict[str, Any]:
    """A COCO document of so many annotations, made of one of fewer."""
    of: dict[Any, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        of.setdefault(annotation["image_id"], []).append(annotation)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    while len(annotations) < count:
        for image in document["images"]:
            images.append({**image, "id": len(images) + 1})
            for annotation in of.get(image["id"], []):
                annotations.append({**annotation, "id": len(annotations) + 1, "image_id": len(images)})
            if len(annotations) >= count:
                break
    return {**document, "images": images, "annotations": annotations[:count]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        labels, report = Path(folder) / "labels.json", Path(folder) / "report"
        labels.write_text(json.dumps(repeated(json.loads(arguments.labels.read_text()), arguments.count)))
        began = time.perf_counter()
        done = write_report(labels, arguments.images, report, threads=arguments.threads, progress=False)
        seconds = time.perf_counter() - began
        files = [file for file in report.rglob("*") if file.is_file()]
        figures = {
            "objects": done.objects,
            "shown": done.shown,
            "seconds": round(seconds, 2),
            "files": len(files),
            "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 2),
            "megabytes_of_data": round(sum(file.stat().st_size for file in (report / "data").iterdir()) / 1e6, 2),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
    print(figures)
    save(arguments.json, figures)


if __name__ == "__main__":
    main()
