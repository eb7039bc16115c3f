"""Masks of a validation set while training, scored as `mal-trt evaluate` scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import DAMAGED, ImageProblem, open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame, make_frame, read_crop
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.measure.evaluate import score_labels
from mal_trt.training.augment import normalise
from mal_trt.training.config import TrainConfig
from mal_trt.training.network import MALNetwork
from mal_trt.training.one_size import batches, size_classes
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.threshold import threshold_for
from mal_trt.training.trainer import Trainer, network_config

MAX_AREA = 1e9


class Crop(TypedDict):
    """pixels: uint8 [S,S,3]. row: annotation. good: whether its picture could be read."""

    pixels: Tensor
    row: int
    good: bool


@dataclass(frozen=True)
class ValidationCrops(Dataset[Crop]):
    """The test-time crops of some rows."""

    boxes: TrainingBoxes
    rows: np.ndarray
    config: TrainConfig

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self, row: int) -> Frame:
        width, height = self.boxes.pictures[self.boxes.picture[row]].expected
        return make_frame(self.boxes.boxes[row], width, height, self.side(row), self.config.test_margin)

    def side(self, row: int) -> int:
        """Side of the crop, pixels."""
        return network_config(self.config).side(SizeClass(size_classes(self.boxes.boxes[row : row + 1])[0]))

    def __getitem__(self, i: int) -> Crop:
        row = int(self.rows[i])
        size = self.side(row)
        try:
            picture = self.boxes.pictures[self.boxes.picture[row]].read()
        except ImageProblem:
            return Crop(pixels=torch.zeros(size, size, 3, dtype=torch.uint8), row=row, good=False)
        crop = read_crop(picture, self.frame(row).extended, size)
        return Crop(pixels=torch.from_numpy(crop.copy()), row=row, good=True)


class Validation:
    """A validation set of a run; `run` gives the figures of `mal-trt evaluate`, on every process."""

    def __init__(self, config: TrainConfig) -> None:
        if config.val_boxes is None:
            raise InputError("validation needs boxes (--val-boxes)")
        boxes = Boxes(config.val_boxes, config.boxes_format, config.val_split, config.rescale)
        images = config.val_images or boxes.home()
        self.config, self.where = config, str(boxes)
        self.boxes = read_training_boxes((images,), (boxes,), 0.0, MAX_AREA)
        document = boxes.document(open_images(images))
        records = document["annotations"]
        rows = np.array([row for row, at in enumerate(self.boxes.records) if records[at].get("segmentation")], np.int64)
        if not len(rows):
            raise InputError(f"{boxes}: no annotation has a mask to validate against; leave out --val-boxes")
        rows = np.sort(np.random.default_rng(0).permutation(rows)[: config.val_limit])
        self.rows = rows[np.argsort(self.boxes.picture[rows], kind="stable")]
        # Masks and annotations meet by the row, as the document's own ids may be missing or come twice.
        drawn = [{**records[self.boxes.records[row]], "id": row} for row in np.sort(rows).tolist()]
        self.truth = {**document, "annotations": drawn}

    @torch.no_grad()
    def run(self, trainer: Trainer) -> dict[str, Any]:
        """Figures of the present weights; see `mal_trt.measure.metrics.summarize` for the keys."""
        fabric, config = trainer.fabric, self.config
        crops = ValidationCrops(self.boxes, self.rows[fabric.global_rank :: fabric.world_size], config)
        networks = [trainer.student] * (config.val_weights != "teacher")
        networks += [trainer.teacher] * (config.val_weights != "student")
        for network in networks:
            network.eval()
        labels = []
        places = list(batches(range(len(crops)), lambda place: crops.side(int(crops.rows[place])), config.batch))
        pinned = trainer.device.type == "cuda"
        loader = DataLoader(crops, batch_sampler=places, num_workers=config.workers, pin_memory=pinned)
        for batch in loader:
            rows = batch["row"].tolist()
            frames = [crops.frame(row) for row in rows]
            logits = self._logits(trainer, networks, batch["pixels"], torch.tensor([f.area for f in frames]))
            for row, frame, values, good in zip(rows, frames, logits, batch["good"].tolist(), strict=True):
                threshold = threshold_for(config.thresholds, frame.area)
                labels.append({"id": row, "segmentation": rle_from_logits(values, frame, threshold) if good else None})
        for network in networks:
            network.train()
        labels = _gathered(labels)
        missing = [{"id": label["id"], "reason": DAMAGED} for label in labels if label["segmentation"] is None]
        return score_labels(self.truth, labels, self.where, missing)

    def _logits(self, trainer: Trainer, networks: list[MALNetwork], crops: Tensor, area: Tensor) -> np.ndarray:
        """Mean logits of the networks, and of the mirrored crops where wanted; float32 [B,h,w]."""
        image, area = normalise(crops.to(trainer.device)), area.to(trainer.device)
        with trainer.fabric.autocast():
            found = [network(image, area) for network in networks]
            if self.config.val_flip:
                found += [network(image.flip(-1), area).flip(-1) for network in networks]
        mean: np.ndarray = torch.stack(found).float().mean(0)[:, 0].cpu().numpy()
        return mean


def _gathered(labels: list[Any]) -> list[Any]:
    """The labels of all processes, on each."""
    if not torch.distributed.is_initialized():
        return labels
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, labels)
    return [label for part in parts for label in part]
