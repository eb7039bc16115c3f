"""What pycocotools makes of a mask, to compare with."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco


def coco_encode(mask: np.ndarray) -> dict[str, object]:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
