"""The stages of the bundled model: each goes on from the one before, in a folder of its own."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from mal_trt.export.bundled import sources, stages
from mal_trt.training.loop import CHECKPOINT


def test_stages_are_a_chain(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_boxes.json").touch()
    images, boxes = sources(tmp_path)
    assert images == (tmp_path / "one" / "images-00.tar", tmp_path / "two" / "images-00.tar")
    chain = stages(images, boxes, tmp_path / "out")
    assert [stage.out.name for stage in chain] == ["figures", "boxes", "detail", "long", "even", "more"]
    assert chain[0].start_from is None
    for before, stage in pairwise(chain):
        assert stage.start_from == before.out / CHECKPOINT
        assert (stage.images, stage.boxes) == (images, boxes)
    assert [stage.priors is not None for stage in chain] == [False, True, False, False, False, False]
