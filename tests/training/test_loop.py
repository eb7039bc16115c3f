"""The training loop: the published order of a step, resume after a kill, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mal_trt.errors import InputError, RunError
from mal_trt.training import loop
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.figures import draw_figure
from mal_trt.training.loop import Trainer, train
from mal_trt.training.losses import LossTerms

SIDE = 112


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn pictures with their boxes; the exact masks are kept aside for measuring."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images, annotations, masks = [], [], []
    for i in range(40):
        picture, mask = draw_figure(lambda r, side: r.integers(0, 255, (side, side, 3)).astype(np.uint8), rng, SIDE)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
        ys, xs = np.nonzero(mask)
        x, y = int(xs.min()), int(ys.min())
        box = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
        images.append({"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
        masks.append(mask)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "figure"}]}
    (folder / "boxes.json").write_text(json.dumps(document))
    np.save(folder / "masks.npy", np.stack(masks))
    return folder


def config(drawn: Path, out: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        images=(drawn / "pictures",),
        boxes=(drawn / "boxes.json",),
        out=out,
        arch="vit-mal-tiny/16",
        layout="hybrid",
        depth=1,
        head_width=16,
        crop_size=64,
        adjust_scale=False,
        batch=4,
        epochs=1.0,
        min_area=100,
        device="cpu",
        workers=0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for kill -9: nothing in the package catches it."""


@pytest.mark.parametrize("recipe", ["tao", "colour"])
def test_a_killed_run_resumes_to_the_same_weights(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    plan = config(drawn, tmp_path / "whole", recipe=recipe, lr=1e-4, epochs=0.8, figures=0.3)
    whole = read_checkpoint(train(plan))

    plan = replace(plan, out=tmp_path / "killed", checkpoint_minutes=0.0)
    add = loop._Log.add

    def stop_at_five(self: loop._Log, terms: LossTerms) -> None:
        if self.trainer.step == 5:
            raise Killed
        add(self, terms)

    monkeypatch.setattr(loop._Log, "add", stop_at_five)
    with pytest.raises(Killed):
        train(plan)
    monkeypatch.setattr(loop._Log, "add", add)
    with pytest.raises(InputError, match="--resume"):
        train(plan)
    with pytest.raises(InputError, match="another lr"):
        train(replace(plan, resume=True, lr=0.5))
    resumed = read_checkpoint(train(replace(plan, resume=True)))

    assert resumed.meta["step"] == whole.meta["step"] == 8
    for part in ("student", "teacher"):
        ours, theirs = resumed.weights(part), whole.weights(part)
        assert ours is not None and theirs is not None
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)


def test_published_step_order(drawn: Path, tmp_path: Path) -> None:
    """Step 0 runs at the full rate with zero loss, step 1 at rate 0; the teacher starts apart from the student."""
    trainer = Trainer(config(drawn, tmp_path, lr=1e-3), steps_per_epoch=10)
    heads = [n.mask_head.convs[0].conv.weight.clone() for n in (trainer.student, trainer.teacher)]
    assert not torch.equal(*heads)
    crop = torch.randint(0, 255, (4, 64, 64, 3), dtype=torch.uint8)
    mask = torch.zeros(4, 64, 64, dtype=torch.uint8)
    mask[:, 16:48, 16:48] = 1
    batch = {
        "student": crop,
        "teacher": crop,
        "mask": mask,
        "area": torch.full((4,), 5000.0),
        "exact": torch.zeros(4, dtype=torch.bool),
    }
    rates, average = [], heads[1]
    for step in range(4):
        before = trainer.student.mask_head.convs[0].conv.weight.clone()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        terms = trainer.train_step(batch)  # type: ignore[arg-type]
        changed = not torch.equal(before, trainer.student.mask_head.convs[0].conv.weight)
        average = 0.996 * average + 0.004 * trainer.student.mask_head.convs[0].conv.weight.detach()
        assert changed == (step != 1)
        assert (terms.total.item() == 0) == (step == 0)
    assert rates == pytest.approx([4e-3, 0.0, 4e-4, 8e-4])
    torch.testing.assert_close(trainer.teacher.mask_head.convs[0].conv.weight, average, atol=1e-6, rtol=0)


def test_a_loss_that_is_no_number_stops_the_run(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at step"):
        train(config(drawn, tmp_path, lr=1e30, epochs=3, warmup_epochs=0.1))


def test_too_few_boxes_for_a_batch(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower --batch"):
        train(config(drawn, tmp_path, batch=100))


@pytest.mark.slow
def test_boxes_alone_teach_shapes(drawn: Path, tmp_path: Path) -> None:
    """From boxes of forty pictures the masks come to beat both the box and the inscribed ellipse."""
    plan = config(
        drawn, tmp_path, recipe="colour", lr=2e-3 / 10, batch=10, epochs=120, warmup_epochs=4, betas=(0.9, 0.98),
        min_lr_rate=0.05, teacher_momentum=0.98, depth=2, head_width=32,
    )  # fmt: skip
    trainer = Trainer(plan, 1)
    checkpoint = read_checkpoint(train(plan))
    trainer.restore(checkpoint.path)
    from mal_trt.crops import make_frame, read_crop
    from mal_trt.masks import mask_from_logits

    document = json.loads((drawn / "boxes.json").read_text())
    masks = np.load(drawn / "masks.npy")
    ious, box_ious, ellipse_ious = [], [], []
    for annotation, truth in zip(document["annotations"], masks, strict=True):
        picture = np.asarray(Image.open(drawn / "pictures" / f"{annotation['image_id']}.png"))
        x, y, w, h = annotation["bbox"]
        frame = make_frame((x, y, x + w, y + h), SIDE, SIDE, 64)
        crop = torch.from_numpy(read_crop(picture, frame.extended, 64).copy())[None]
        with torch.inference_mode():
            logits = trainer.teacher.eval()(normalise(crop), torch.tensor([frame.area]))
        local = mask_from_logits(logits[0, 0].numpy(), frame, 0.5)
        found = np.zeros_like(truth, bool)
        height, width = local.mask.shape
        found[local.y0 : local.y0 + height, local.x0 : local.x0 + width] = local.mask
        box = np.zeros_like(found)
        box[y : y + h, x : x + w] = True
        rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
        ellipse = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
        for list_, mask in ((ious, found), (box_ious, box), (ellipse_ious, ellipse)):
            list_.append((mask & (truth > 0)).sum() / (mask | (truth > 0)).sum())
    assert np.mean(ious) > max(np.mean(box_ious), np.mean(ellipse_ious)) + 0.05
