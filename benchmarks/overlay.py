"""What drawing costs: one mask on a 24-megapixel photo, and the overlays of a data set beside labelling it.

    python benchmarks/overlay.py [--images DIR|TAR --boxes boxes.json [--count 500]] [--size 1600] [--json FILE]

The photo is an example blown up to 6000 x 4000; its overlay is timed from the file to the file, and so it is at full
size. Of the data set `label` is timed in the whole, with and without overlays, in turn; the share is what the overlays
add to it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from common import first_boxes, save
from PIL import Image

from mal_trt.base.outputs import write_json
from mal_trt.examples import __file__ as examples
from mal_trt.formats.overlay import DISPLAY_SIDE
from mal_trt.labelling.run import label

PHOTO, BOX = (6000, 4000), [1550, 100, 2500, 2500]


def large_photo(folder: Path) -> tuple[Path, Path]:
    """A folder with one photo of 24 megapixels, and its box."""
    (folder / "photo").mkdir()
    coffee = Path(examples).parent / "photos" / "coffee.jpg"
    Image.open(coffee).convert("RGB").resize(PHOTO).save(folder / "photo" / "a.jpg")
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": PHOTO[0], "height": PHOTO[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX}],
        "categories": [{"id": 1, "name": "cup"}],
    }
    write_json(document, folder / "box.json")
    return folder / "photo", folder / "box.json"


class Stopwatch:
    """Seconds of `label` in the whole, a new output each time."""

    def __init__(self, folder: Path, images: Path, boxes: Path, model: str, threads: int | None) -> None:
        self._given = images, boxes, model
        self._folder, self._threads, self._runs = folder, threads, 0

    def seconds(self, side: int | None) -> float:
        self._runs += 1
        place = self._folder / f"run-{self._runs}"
        options = {} if side is None else {"overlay": place / "overlays", "overlay_size": side}
        began = time.perf_counter()
        label(*self._given, place / "labels.json", device="cpu", threads=self._threads, progress=False, **options)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--boxes", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=500, help="boxes")
    parser.add_argument("--size", type=int, default=DISPLAY_SIDE)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, object] = {"model": Path(arguments.model).name, "size": arguments.size}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        large = Stopwatch(folder / "large", *large_photo(folder), arguments.model, arguments.threads)
        rounds = [[large.seconds(side) for side in (None, arguments.size, 0)] for _ in range(arguments.rounds)]
        without, small, full = (median(row[i] for row in rounds) for i in range(3))
        for name, with_overlay in (("display", small), ("full", full)):
            print(f"24 megapixels, one mask, {name} size: {with_overlay - without:.2f} s beside {without:.2f} s")
        figures["photo_24mp"] = {
            "label_s": round(without, 3),
            "overlay_s": round(small - without, 3),
            "full_overlay_s": round(full - without, 3),
        }
        if arguments.images and arguments.boxes:
            some = folder / "some.json"
            count = first_boxes(arguments.images, arguments.boxes, arguments.count, some)
            many = Stopwatch(folder / "many", arguments.images, some, arguments.model, arguments.threads)
            pairs = [(many.seconds(None), many.seconds(arguments.size)) for _ in range(arguments.rounds)]
            share = median(drawn / plain - 1 for plain, drawn in pairs)
            print(f"{arguments.boxes.name}, {count} boxes: overlays add {share:.1%} to label's time")
            figures["data_set"] = {
                "boxes_file": arguments.boxes.name,
                "boxes": count,
                "label_s": [round(plain, 2) for plain, _ in pairs],
                "with_overlays_s": [round(drawn, 2) for _, drawn in pairs],
                "share": round(share, 4),
            }
    save(arguments.json, figures)


if __name__ == "__main__":
    main()
