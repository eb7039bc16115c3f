"""YOLO data sets as they are downloaded and exported: which files are labels, of which split, with which names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images

LINE = "1 0.5 0.5 0.5 0.5\n"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(path)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, images: Path | None = None, **options: str) -> tuple[list[str], list[str], list[str]]:
    """(pictures with boxes, names of the classes, notes); each picture has one box in its middle."""
    boxes = Boxes(path, **options)
    document = boxes.document(open_images(images or boxes.home()))
    assert [a["bbox"] for a in document["annotations"]] == [[20, 15, 40, 30]] * len(document["images"])
    return [i["file_name"] for i in document["images"]], [c["name"] for c in document["categories"]], boxes.notes


@pytest.fixture
def roboflow(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for split in ("train", "valid"):
        picture(root / split / "images" / "a.jpg")
        text(root / split / "labels" / "a.txt", LINE)
    text(root / "README.roboflow.txt", "My data set\n====\n")
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['no', '1.0']\n"
    text(root / "data.yaml", yaml)
    return root


def test_roboflow(roboflow: Path) -> None:
    both = ["train/images/a.jpg", "valid/images/a.jpg"]
    for path in (roboflow, roboflow / "data.yaml"):
        assert read(path) == (both, ["no", "1.0"], [])
        assert read(path, roboflow) == (both, ["no", "1.0"], [])
        assert read(path, roboflow, split="valid")[0] == read(path, roboflow, split="val")[0] == both[1:]
        with pytest.raises(InputError, match="no split test; its splits: train, val"):
            read(path, split="test")
    assert read(roboflow / "train" / "labels", roboflow)[:2] == (both[:1], ["no", "1.0"])
    assert read(roboflow / "train")[:2] == (["a.jpg"], ["no", "1.0"])


def test_ultralytics(tmp_path: Path) -> None:
    root = tmp_path / "coco8"
    for name in ("train/a", "val/b", "more/c"):
        picture(root / "images" / f"{name}.jpg")
        text(root / "labels" / f"{name}.txt", LINE)
    text(root / "labels" / "train.cache", "\0")
    names = "names:\n  0: person\n  1: bicycle  # two wheels\n"
    yaml = (
        f"path: ../datasets/coco8 # root\ntrain: [images/train, images/more]\nval: images/val\ntest: # none\n\n{names}"
    )
    text(root / "coco8.yaml", yaml)
    every = ["images/train/a.jpg", "images/more/c.jpg", "images/val/b.jpg"]
    assert read(root / "coco8.yaml", root) == (every, ["person", "bicycle"], [])
    assert read(root, root)[0] == every
    assert read(root, split="train")[0] == ["train/a.jpg", "more/c.jpg"]
    assert sorted(read(root / "labels", root / "images")[0]) == ["more/c.jpg", "train/a.jpg", "val/b.jpg"]
    text(root / "coco8.yaml", yaml.replace("../datasets/coco8", "/content/datasets/coco8"))
    assert read(root / "coco8.yaml", root)[0] == every, "made on another machine"


def test_a_list_of_pictures(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        picture(root / "images" / f"{name}.jpg")
        text(root / "labels" / f"{name}.txt", LINE)
    listed = text(root / "train.txt", "./images/a.jpg\n")
    text(root / "data.yaml", "train: train.txt\nval: images\nnames: {0: x, 1: y}\n")
    assert read(root, root, split="train")[:2] == read(listed, root)[:2]
    assert len(read(root, root)[0]) == 2


def test_darknet(tmp_path: Path) -> None:
    root = tmp_path / "task"
    for name in ("a", "b"):
        picture(root / "obj_train_data" / f"{name}.png")
        text(root / "obj_train_data" / f"{name}.txt", LINE)
    text(root / "obj.names", "cat\ndog\n")
    text(root / "train.txt", "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    for path in (root, root / "obj.data", root / "train.txt", root / "obj_train_data"):
        assert read(path)[:2] == (["a.png", "b.png"], ["cat", "dog"])
    assert read(root, root, split="train")[0] == ["obj_train_data/a.png", "obj_train_data/b.png"]


def test_side_by_side_with_strays(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.txt", LINE)
    text(tmp_path / "classes.txt", "cat\ndog\n")
    text(tmp_path / "train.txt", "data/a.jpg\n")
    text(tmp_path / "README.roboflow.txt", "Hello\n")
    names, kinds, notes = read(tmp_path)
    assert (names, kinds) == (["a.jpg", "b.jpg"], ["cat", "dog"])
    assert notes == ["2 files are no labels and were passed over (README.roboflow.txt, train.txt)"]


def test_a_bad_label_of_a_picture_is_no_stray(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", "0,5 0,5 0,5 0,5 0,5\n")
    picture(tmp_path / "b.jpg")
    text(tmp_path / "b.txt", LINE)
    with pytest.raises(InputError, match=r"a\.txt:1: not a YOLO line"):
        read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "1.0 0.5 0.5 0.5 0.5",
        "1e0 .5 5e-1 0.50 +0.5",
        "dog 0.5 0.5 0.5 0.5",
        "\ufeff1 0.5 0.5 0.5 0.5\r",
        "1 0.5 0.5 0.5 0.5 0.9",
    ],
)
def test_numbers_are_numbers(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", line)
    text(tmp_path / "classes.txt", "cat\ndog\n")
    boxes = Boxes(tmp_path)
    (record,) = boxes.document(open_images(tmp_path))["annotations"]
    assert record["category_id"] == 1 and record["bbox"] == [20, 15, 40, 30]


@pytest.mark.parametrize(
    "line", ["0.5 0.5 0.5 0.5 0.5", "-1 0.5 0.5 0.5 0.5", "nan 0.5 0.5 0.5 0.5", "cow .5 .5 .5 .5"]
)
def test_classes_that_are_none(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", line)
    with pytest.raises(InputError, match=r"a\.txt:1: "):
        Boxes(tmp_path, "yolo").document(open_images(tmp_path))


def test_oriented_boxes_and_key_points(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", "0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n")
    (record,) = Boxes(tmp_path).document(open_images(tmp_path))["annotations"]
    assert record["bbox"] == [20, 15, 40, 30]
    text(tmp_path / "data.yaml", "train: images\nnames: [a]\nkpt_shape: [2, 3]\n")
    text(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.2 2 0.3 0.4 1\n")
    (record,) = Boxes(tmp_path).document(open_images(tmp_path))["annotations"]
    assert record["bbox"] == [20, 15, 40, 30] and "segmentation" not in record and "score" not in record


def test_plain_causes_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    boxes = Boxes(tmp_path, "yolo")
    for line, says in (("1 40 30 20 20", "look like pixels"), ("1 .5 .5 .1 .1\n2 .5 .5 .1 .1", "look counted from 1")):
        text(tmp_path / "a.txt", line)
        boxes.document(open_images(tmp_path))
        assert len(boxes.notes) == 1 and says in boxes.notes[0]


def test_a_description_that_cannot_be_read(tmp_path: Path) -> None:
    for content, says in (
        ("names: [a\ntrain: x\n", r"data\.yaml:\d: not YAML"),
        ("- a\n", "no data set's description"),
    ):
        text(tmp_path / "data.yaml", content)
        with pytest.raises(InputError, match=says):
            Boxes(tmp_path / "data.yaml").document(open_images(tmp_path))


def test_names_of_another_data_set_are_not_taken(tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "photos" / "a.jpg")
    text(tmp_path / "mine" / "photos" / "a.txt", LINE)
    text(tmp_path / "classes.txt", "wrong\nwrong too\n")
    assert read(tmp_path / "mine" / "photos")[1] == ["0", "1"]
