"""Folders of labels in which other files lie: these are passed over and told of, and what is broken is never lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from box_files import coco, csv_pixels, cvat, label_studio, labelme, via, write
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images
from mal_trt.formats.reading.detect import detect

Writer = Callable[[Path], Path]
STRAYS = {
    "README.txt": "This is a data set.",
    "papers.txt": "[1] Somebody, a paper",
    "meta.json": '{"name": "x", "version": 1}',
    "sample_submission.csv": "image_id,PredictionString\n",
    "note.xml": "<note>x</note>",
    "classes.txt": "cat\ndog\n",
}


@pytest.mark.parametrize("writer", [coco, csv_pixels, cvat, label_studio, via])
def test_other_files_among_labels(tmp_path: Path, pictures: Path, writer: Writer) -> None:
    alone = Boxes(writer(tmp_path / "alone")).document(open_images(pictures))
    folder = writer(tmp_path / "set").parent
    for name, text in STRAYS.items():
        write(folder / name, text)
    boxes = Boxes(folder)
    assert boxes.document(open_images(pictures)) == alone
    (note,) = [note for note in boxes.notes if "passed over" in note]
    assert any(name in note for name in STRAYS)
    list(boxes.entries(open_images(pictures)))
    assert note in boxes.notes


def test_a_large_folder_takes_little_longer_for_its_format(tmp_path: Path) -> None:
    for number in range(4000):
        (tmp_path / f"{number:05}.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    seconds = []
    for format in (None, "voc"):
        began = time.perf_counter()
        assert len(detect(tmp_path, format).files) == 4000
        seconds.append(time.perf_counter() - began)
    assert seconds[1] < 5 * seconds[0] + 0.5  # it was quadratic once: 1.2 s for as many


@pytest.mark.parametrize("writer", [labelme, label_studio, via])
def test_a_file_cut_off_among_whole_ones(tmp_path: Path, pictures: Path, writer: Writer) -> None:
    folder = writer(tmp_path / "set")
    folder = folder if folder.is_dir() else folder.parent
    whole = next(folder.glob("*.json")).read_text()
    write(folder / "whole.json", whole)
    write(folder / "zz.json", whole[:12])
    with pytest.raises(InputError, match=r"zz\.json: not JSON"):
        Boxes(folder).document(open_images(pictures))
