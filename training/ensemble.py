"""Soft masks of several networks for the training boxes: the targets of a second round.

Averaging independent runs and views is what improves a self-trained target (Noisy Student arXiv 1911.04252, BoxTeacher
arXiv 2210.05174); a box counts only where the networks agree and the mask fills the box. Not part of published MAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mal_trt.base.errors import InputError
from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import load_into
from mal_trt.training.exported import read_start
from mal_trt.training.network import build_network
from mal_trt.training.over_box import SIDE, agreement, extent, over_box, place, recentred
from mal_trt.training.pictures import TrainingBoxes
from mal_trt.training.prior import Prior, stored_arrays

MARGINS = (0.3, 0.6)
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(2, 11))
TOLERANCE = 0.01  # of the best box agreement, see training.threshold
AGREEMENT = 0.85  # least mean IoU of a member's mask with the ensemble's
REACH = 0.9  # least IoU of the mask's own box with the given one
FILL = (0.05, 0.98)


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, in evaluation mode, and the side of its crops."""

    network: nn.Module
    size: int


def load_members(checkpoints: Sequence[Path], device: torch.device) -> list[Member]:
    """The teachers of checkpoints (or exported models, or "bundled")."""
    members = []
    for path in checkpoints:
        source = read_start(path)
        if source.config is None:
            raise InputError(f"{path}: holds only an encoder; an ensemble needs trained networks")
        network = build_network(source.config).eval().requires_grad_(False)
        load_into(network, source, "teacher")
        members.append(Member(network.to(device).to(memory_format=torch.channels_last), source.config.crop_size))
    return members


def compute_targets(
    checkpoints: Sequence[Path],
    boxes: TrainingBoxes,
    path: Path,
    device: str = "cpu",
    workers: int = 2,
    batch: int = 64,
    threshold: float | None = None,
) -> dict[str, float]:
    """Soft masks of all boxes, stored at `path` (.npz): rows int64 [n], masks uint8 [n,64,64], trust float32 [n].

    A mask is the mean over networks, two margins and the mirror, moved so that the threshold lies at one half. None:
    the one at which masks fill their boxes. Stored are the boxes on which the networks agree. Returns figures of the
    run.
    """
    where = torch.device(device)
    members = load_members(checkpoints, where)
    sizes = sorted({member.size for member in members})
    found = np.zeros((len(boxes), len(members), SIDE, SIDE), np.float16)
    seen = np.zeros(len(boxes), bool)
    loader = DataLoader(
        _Views(boxes, sizes),
        batch_size=batch,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=where.type == "cuda",
    )
    for rows, crops, grids in loader:
        if not len(rows):
            continue
        with torch.no_grad(), torch.autocast(where.type, torch.bfloat16):
            for index, member in enumerate(members):
                found[rows, index] = _soft(member, crops[member.size], grids, where)
        seen[rows] = True
    means = found.mean(1, dtype=np.float32)
    if threshold is None:
        threshold = _fitting(means[seen])
    trust = np.array([_trust(found[row], means[row], threshold) if seen[row] else 0.0 for row in range(len(boxes))])
    rows = np.flatnonzero(trust > 0)
    centred = recentred(means[rows], threshold)
    np.savez_compressed(
        path, rows=rows, masks=np.round(centred * 255).astype(np.uint8), trust=trust[rows].astype(np.float32)
    )
    return {"boxes": len(boxes), "trusted": len(rows), "threshold": threshold, "mean_trust": float(trust[rows].mean())}


def load_targets(path: Path) -> dict[int, Prior]:
    """What `compute_targets` stored, by row; InputError if it is another file."""
    rows, masks, trust = stored_arrays(path, "targets of an ensemble", "rows", "masks", "trust")
    return {int(row): Prior(mask, float(t)) for row, mask, t in zip(rows, masks, trust, strict=True)}


# A row; for each size its crops, uint8 [margins,S,S,3]; where the box lies in them, float32 [margins,4], XYXY of 0..1.
View = tuple[int, dict[int, np.ndarray], np.ndarray]


class _Views(Dataset[View | None]):
    """All boxes as views, those of a picture one after the other; None where the picture is damaged."""

    def __init__(self, boxes: TrainingBoxes, sizes: Sequence[int]) -> None:
        self.boxes, self.sizes = boxes, sizes
        self.order = np.argsort(boxes.picture, kind="stable")
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> View | None:
        row = int(self.order[i])
        number = int(self.boxes.picture[row])
        if self._last is None or self._last[0] != number:
            try:
                self._last = number, self.boxes.pictures[number].read()
            except ImageProblem:
                return None
        picture, box = self._last[1], self.boxes.boxes[row]
        height, width = picture.shape[:2]
        extended = [make_frame(box, width, height, self.sizes[0], margin).extended for margin in MARGINS]
        crops = {size: np.stack([read_crop(picture, e, size) for e in extended]) for size in self.sizes}
        places = np.array([place(box, e) for e in extended], np.float32)
        return row, crops, places


def _collate(items: list[View | None]) -> tuple[np.ndarray, dict[int, Tensor], Tensor]:
    kept = [item for item in items if item is not None]
    if not kept:
        return np.zeros(0, np.int64), {}, torch.zeros(0)
    crops = {size: torch.from_numpy(np.stack([item[1][size] for item in kept])) for size in kept[0][1]}
    return np.array([item[0] for item in kept]), crops, torch.from_numpy(np.stack([item[2] for item in kept]))


def _soft(member: Member, crops: Tensor, places: Tensor, device: torch.device) -> np.ndarray:
    """Mean probability over the box, float16 [B,64,64], over margins and mirror."""
    count, views = crops.shape[:2]
    image = normalise(crops.flatten(0, 1).to(device, non_blocking=True))
    area = torch.full((count * views,), 1e5, device=device)
    logits = torch.stack([member.network(image, area), member.network(image.flip(-1), area).flip(-1)]).float().mean(0)
    mean = over_box(logits, places.to(device).flatten(0, 1)).view(count, views, SIDE, SIDE).mean(1).sigmoid()
    result: np.ndarray = mean.half().cpu().numpy()
    return result


def _fitting(means: np.ndarray) -> float:
    """The highest threshold whose masks fill their boxes as well as any, within the tolerance."""
    agreement = {threshold: float(np.mean([extent(m > threshold) for m in means[::7]])) for threshold in THRESHOLDS}
    best = max(agreement.values())
    return max(threshold for threshold, value in agreement.items() if value >= best - TOLERANCE)


def _trust(members: np.ndarray, mean: np.ndarray, threshold: float) -> float:
    """Mean IoU of the members' masks with the ensemble's; 0 where that, the extent or the fill is out of bounds."""
    whole = mean > threshold
    if extent(whole) < REACH or not FILL[0] <= whole.mean() <= FILL[1]:
        return 0.0
    alike = agreement(members > threshold, whole)
    return alike if alike >= AGREEMENT else 0.0
