"""The losses, the mean field and the schedule against numbers from the published implementation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mal_trt.training.augment import normalise
from mal_trt.training.losses import MalLoss, dice_loss, mil_loss, resize
from mal_trt.training.mean_field import MeanField
from mal_trt.training.schedule import CosineSchedule, update_teacher

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = json.loads((GOLDEN / "losses.json").read_text())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "losses.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(scope="module")
def image(golden: dict[str, Tensor]) -> Tensor:
    return normalise(golden["image_u8"])


def probabilities(golden: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return golden["student_logits"].sigmoid(), golden["teacher_logits"].sigmoid()


def test_dice_and_mil(golden: dict[str, Tensor]) -> None:
    p, _ = probabilities(golden)
    mask = resize(golden["mask256"].float(), (64, 64))
    torch.testing.assert_close(mil_loss(p, mask), golden["mil_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(dice_loss(p, mask), golden["dice_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(dice_loss(mask, mask), golden["dice_loss_perfect"], atol=1e-5, rtol=0)
    torch.testing.assert_close(dice_loss(mask * 0, mask * 0), golden["dice_loss_zero"], atol=1e-5, rtol=0)


def test_kernel(golden: dict[str, Tensor], image: Tensor) -> None:
    kernel = MeanField().kernel(resize(image, (64, 64)))
    torch.testing.assert_close(kernel[:, :, ::4, ::4], golden["kernel"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("iterations", [1, 2, 10, 100])
def test_mean_field_iterations(golden: dict[str, Tensor], image: Tensor, iterations: int) -> None:
    p, t = probabilities(golden)
    q = MeanField(iterations=iterations).soft((p + t) / 2, resize(image, (64, 64)), golden["mask64"][:, None])
    torch.testing.assert_close(q[:, 0], golden[f"q_iter{iterations}"], atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "field", "masked"),
    [
        ("refined", MeanField(), True),
        ("refined_notarget", MeanField(), False),
        ("refined_zeta05", MeanField(zeta=0.5), True),
        ("refined_k5", MeanField(kernel_size=5), True),
        ("refined_it10", MeanField(iterations=10), True),
        ("refined_thr", MeanField(low=0.3, high=0.7), True),
    ],
)
def test_mean_field_masks(golden: dict[str, Tensor], image: Tensor, name: str, field: MeanField, masked: bool) -> None:
    p, t = probabilities(golden)
    refined = field((p + t) / 2, resize(image, (64, 64)), golden["mask64"][:, None] if masked else None)
    assert (refined[:, 0] != golden[name]).float().mean() <= 0.001


@pytest.mark.parametrize("name", NUMBERS["training_step"])
def test_training_loss(golden: dict[str, Tensor], image: Tensor, name: str) -> None:
    expected = NUMBERS["training_step"][name]
    logits = golden["student_logits"].clone().requires_grad_()
    loss = MalLoss(size_ratio=expected["crf_size_ratio"])
    terms = loss(
        logits,
        golden["teacher_logits"],
        image,
        golden["mask256"],
        expected["epoch"],
        expected["local_step"],
    )
    terms.total.backward()
    assert terms.total.item() == pytest.approx(expected["total"], abs=1e-5)
    assert terms.mil.item() == pytest.approx(expected["mil"], abs=1e-5)
    assert terms.crf.item() == pytest.approx(expected["crf"], abs=1e-5)
    assert logits.grad is not None
    gradient = golden.get(f"grad_total_{name}")
    if gradient is not None:
        torch.testing.assert_close(logits.grad, gradient, atol=1e-6, rtol=0)
    assert logits.grad.abs().sum().item() == pytest.approx(expected["grad_abs_sum"], abs=1e-3)


@pytest.mark.parametrize("row", NUMBERS["lr_schedule"], ids=str)
def test_schedule(row: dict[str, float]) -> None:
    schedule = CosineSchedule(row["lr"], row["min_lr"], row["num_epochs"], row["warmup_epochs"], row["num_wave"])
    assert schedule(row["epoch"]) == pytest.approx(row["group_lr"], abs=1e-12)


def test_teacher_is_a_moving_average_of_parameters_only() -> None:
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    assert student.running_mean is not None and teacher.running_mean is not None
    with torch.no_grad():
        student.weight.fill_(2.0)
        student.running_mean.fill_(9.0)
    update_teacher(teacher, student, 0.996)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 1.004))
    assert not teacher.running_mean.any()
