"""The colour term: it finds an object by its colour, and its loss leads there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mal_trt.training.colour import ColourBatch, ColourLoss, colour_likelihood


def scene(side: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Red disc on green noise: RGB 0..1 [1,3,S,S], the disc, and its box, [1,1,S,S] of 0/1."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    disc = (((x - side / 2) ** 2 + (y - side / 2) ** 2) < (side / 3.2) ** 2).float()[None, None]
    red, green = (torch.tensor(c).view(1, 3, 1, 1) for c in ([0.8, 0.2, 0.2], [0.2, 0.6, 0.2]))
    crop = disc * red + (1 - disc) * green + 0.1 * torch.randn(1, 3, side, side, generator=generator)
    box = torch.zeros_like(disc)
    ys, xs = torch.nonzero(disc[0, 0], as_tuple=True)
    box[..., ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = 1
    return crop, disc, box


def iou(a: Tensor, b: Tensor) -> float:
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


def test_likelihood_separates_the_colours() -> None:
    crop, disc, box = scene()
    likelihood = colour_likelihood(box * 0.7, crop)
    assert likelihood.shape == disc.shape and likelihood.min() >= 0 and likelihood.max() <= 1
    assert iou(box, disc) < 0.85
    assert iou(likelihood, disc) > 0.98


def test_samples_of_a_batch_do_not_mix() -> None:
    crop, _, box = scene()
    alone = colour_likelihood(box * 0.7, crop)
    both = colour_likelihood(torch.cat([box * 0.7, box * 0.2]), torch.cat([crop, crop.flip(1)]))
    torch.testing.assert_close(both[:1], alone)


def test_target_tightens_a_box_to_its_object() -> None:
    crop, disc, box = scene()
    none, weight = torch.zeros_like(box), torch.zeros(1, 1, 1, 1)
    target, plain = (ColourLoss().target(box * 0.8, crop, box, none, weight, ramp) for ramp in (1.0, 0.0))
    assert iou(target, disc) > 0.95
    assert iou(target, disc) > iou(plain, disc) + 0.05, "local colours alone are too noisy here"
    with_prior = ColourLoss().target(box * 0.8, crop, box, disc, weight + 0.6, ramp=0.0)
    assert iou(with_prior, disc) > 0.95


def test_descent_finds_the_disc_from_its_box() -> None:
    crop, disc, box = scene()
    logits = torch.zeros(1, 1, 32, 32, requires_grad=True)
    samples = ColourBatch(box, torch.tensor([False]), torch.zeros_like(box), torch.tensor([False]))
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        terms = ColourLoss()(logits, logits.detach(), crop, samples, ramp=1.0, progress=0.0)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    assert iou(logits.detach().sigmoid(), disc) > 0.9


def test_exact_masks_are_learnt_as_they_are() -> None:
    crop, disc, box = scene()
    right = ((disc * 2 - 1) * 8).requires_grad_()
    wrong = ((box * 2 - 1) * 8).requires_grad_()
    samples = ColourBatch(disc, torch.tensor([True]), torch.zeros_like(box), torch.tensor([False]))
    losses = [ColourLoss()(x, x.detach(), crop, samples, 1.0, 0.0) for x in (right, wrong)]
    assert losses[0].total.item() < 0.01
    assert losses[1].total.item() > 0.2
    assert losses[0].mil.item() == 0


@pytest.mark.parametrize("exact", [[True, False], [False, False], [True, True]])
def test_mixed_batches_have_gradients(exact: list[bool]) -> None:
    crop, disc, box = scene()
    logits = torch.zeros(2, 1, 16, 16, requires_grad=True)
    samples = ColourBatch(
        torch.cat([disc, box]), torch.tensor(exact), torch.cat([disc, disc]), torch.tensor([False, True])
    )
    terms = ColourLoss()(logits, logits.detach(), torch.cat([crop, crop]), samples, ramp=0.5, progress=0.5)
    terms.total.backward()
    assert (
        logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[0].any() and logits.grad[1].any()
    )
    torch.testing.assert_close(terms.total, terms.mil + terms.crf)
