"""JPEG by Pillow and by simplejpeg: milliseconds a picture as `label` reads it, and whether the pixels are the same.

    python benchmarks/decode_speed.py --images DIR|TAR [--count 200] [--by 1 2 4 8] [--rounds 5] [--json FILE]

From memory, both in turn; the best round counts.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import save

from mal_trt.formats import pixels
from mal_trt.formats.images import open_images, read_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--by", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = open_images(arguments.images)
    files = [data for data in map(source.read, source.examples(arguments.count)) if data.startswith(b"\xff\xd8\xff")]
    rows = []
    for by in arguments.by:

        def milliseconds(by: int = by) -> float:
            began = time.perf_counter()
            for data in files:
                read_picture(io.BytesIO(data), by=by)
            return (time.perf_counter() - began) / len(files) * 1e3

        found: dict[str, list[float]] = {"pillow": [], "simplejpeg": []}
        with patch.object(pixels, "read_jpeg", lambda *_: None):
            seen = [read_picture(io.BytesIO(data), by=by) for data in files[:20]]
        same = all(np.array_equal(a, read_picture(io.BytesIO(d), by=by)) for a, d in zip(seen, files, strict=False))
        for _ in range(arguments.rounds):
            with patch.object(pixels, "read_jpeg", lambda *_: None):
                found["pillow"].append(milliseconds())
            found["simplejpeg"].append(milliseconds())
        row: dict[str, Any] = {"by": by, "pictures": len(files), "same_pixels": same}
        rows.append({**row, **{name: round(min(values), 2) for name, values in found.items()}})
        print(json.dumps(rows[-1]))
    save(arguments.json, {"images": arguments.images.name, "milliseconds": rows})


if __name__ == "__main__":
    main()
