"""The pictures of docs/concepts/mal.md, of the example photos by the bundled model: python scripts/docs_pictures.py

Run it again when the bundled model changes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mal_trt.formats.overlay import draw_overlay
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.labelling.predictor import Predictor

ROOT = Path(__file__).parent.parent
SHOWN = ("cat", "helmet", "rocket")
TILE, GAP = 240, 8
PAPER = (255, 255, 255)


def heat(probability: np.ndarray) -> Image.Image:
    """Probabilities [h,w] from dark blue (0) over green to yellow (1)."""
    stops = np.array([(20, 24, 70), (30, 120, 140), (90, 190, 100), (250, 230, 60)], float)
    at = np.clip(probability, 0, 1) * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    share = (at - low)[..., None]
    return Image.fromarray((stops[low] * (1 - share) + stops[low + 1] * share).astype(np.uint8))


def tile(image: Image.Image) -> Image.Image:
    """An image in the middle of a square tile."""
    scale = TILE / max(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    paper = Image.new("RGB", (TILE, TILE), PAPER)
    paper.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return paper


def row(predictor: Predictor, photo: np.ndarray, bbox: list[float]) -> list[Image.Image]:
    """Photo with box and crop, crop, probabilities of the network, those sharpened by colour, mask."""
    x, y, w, h = bbox
    height, width = photo.shape[:2]
    frame = predictor.frame((x, y, x + w, y + h), width, height)
    size = SizeClass(frame.size_class)
    batch = predictor.batch(1, size)
    predictor.crop(photo, frame, batch[0])
    plain, sharp = predictor.run(batch, size)[0], predictor.run(batch, size, [frame])[0]
    mask = mask_from_logits(sharp, frame, predictor.threshold(sharp, frame))
    marked = Image.fromarray(photo)
    draw = ImageDraw.Draw(marked)
    draw.rectangle(frame.extended, outline=(255, 255, 255), width=3)
    draw.rectangle((x, y, x + w, y + h), outline=(255, 90, 60), width=3)
    crop = Image.fromarray(batch[0].astype(np.uint8).transpose(1, 2, 0))
    odds = [heat(1 / (1 + np.exp(-logits))) for logits in (plain, sharp)]
    return [marked, crop, *odds, draw_overlay(photo, [mask])]


def main() -> None:
    document = json.loads((ROOT / "examples" / "boxes.json").read_text())
    names = {c["id"]: c["name"] for c in document["categories"]}
    files = {i["id"]: i["file_name"] for i in document["images"]}
    predictor = Predictor("bundled", "cpu")
    rows = []
    for name in SHOWN:
        annotation = next(a for a in document["annotations"] if names[a["category_id"]] == name)
        photo = np.asarray(Image.open(ROOT / "examples" / "photos" / files[annotation["image_id"]]).convert("RGB"))
        rows.append(row(predictor, photo, annotation["bbox"]))
    step = TILE + GAP
    sheet = Image.new("RGB", (step * len(rows[0]) - GAP, step * len(rows) - GAP), PAPER)
    for down, tiles in enumerate(rows):
        for across, image in enumerate(tiles):
            sheet.paste(tile(image), (across * step, down * step))
    out = ROOT / "docs" / "pictures" / "mal.jpg"
    out.parent.mkdir(exist_ok=True)
    sheet.save(out, quality=88)
    print(out)


if __name__ == "__main__":
    main()
