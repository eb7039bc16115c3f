"""The Python API: pictures and boxes as callers have them, and what importing it costs."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt import Labeler, Masks
from mal_trt.base.errors import InputError


class _Tensor:
    """An array as PyTorch has it: with gradients, on a GPU."""

    def __init__(self, array: np.ndarray, steps: int = 2) -> None:
        self._array, self._steps = array, steps

    def detach(self) -> _Tensor:
        return _Tensor(self._array, self._steps - 1)

    cpu = detach

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self._steps:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self._array.astype(dtype) if dtype else self._array


Write = Callable[..., Any]
BOXES = [[6, 10, 34, 30], [2, 2, 78, 78], [86, 50, 114, 70]]


@pytest.fixture
def labeler(tiny_model: Write) -> Labeler:
    return Labeler(tiny_model(), device="cpu", batch=2, threads=1)


@pytest.fixture
def photo(data_set: Write) -> Path:
    """A file of 120x80 pixels with bright blobs."""
    images, _ = data_set(pictures=1)
    return Path(images / "000000000001.png")


def test_three_lines_to_a_mask(labeler: Labeler, photo: Path) -> None:
    result = labeler(photo, BOXES)
    assert result.masks.shape == (3, 80, 120) and result.masks.dtype == bool
    assert len(result) == 3 and (result.height, result.width) == (80, 120)
    for mask, single in zip(result.masks, result, strict=True):
        np.testing.assert_array_equal(mask, single)
    np.testing.assert_array_equal(result[1], result.masks[1])
    np.testing.assert_array_equal(result.areas, result.masks.sum(axis=(1, 2)))
    assert (result.areas > 100).all()


def test_masks_stay_in_their_boxes_and_on_the_bright_side(labeler: Labeler, photo: Path) -> None:
    grey = np.asarray(Image.open(photo)).mean(axis=2)
    for (x0, y0, x1, y1), mask in zip(BOXES, labeler(photo, BOXES), strict=True):
        outside = mask.copy()
        outside[y0 : y1 + 1, x0 : x1 + 1] = False  # the far edge counts as inside, as in MAL
        assert not outside.any()
        assert grey[mask].mean() > 180


def test_order_follows_the_boxes(labeler: Labeler, photo: Path) -> None:
    """Whatever the size class and batch a box fell into."""
    forward = labeler(photo, BOXES * 2)
    backward = labeler(photo, (BOXES * 2)[::-1])
    np.testing.assert_array_equal(forward.masks, backward.masks[::-1])
    np.testing.assert_array_equal(forward[1], labeler(photo, BOXES[1:2])[0])


def test_rle_is_cocos(labeler: Labeler, photo: Path) -> None:
    from pycocotools import mask as coco

    result = labeler(photo, BOXES)
    for rle, mask in zip(result.rle, result, strict=True):
        assert rle == {
            "size": [80, 120],
            "counts": coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode(),
        }


def test_every_kind_of_picture_gives_the_same(labeler: Labeler, photo: Path) -> None:
    image = Image.open(photo)
    expected = labeler(photo, BOXES).masks
    content, array = photo.read_bytes(), np.asarray(image)
    for picture in (str(photo), content, io.BytesIO(content), image, array, np.asfortranarray(array), _Tensor(array)):
        np.testing.assert_array_equal(labeler(picture, BOXES).masks, expected)
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(labeler(grey, BOXES).masks, labeler(image.convert("L"), BOXES).masks)


def test_every_kind_of_box_gives_the_same(labeler: Labeler, photo: Path) -> None:
    expected = labeler(photo, BOXES).masks
    xyxy = np.array(BOXES)
    xywh = np.hstack([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]])
    np.testing.assert_array_equal(labeler(photo, xyxy.astype(np.float32)).masks, expected)
    np.testing.assert_array_equal(labeler(photo, [tuple(b) for b in BOXES]).masks, expected)
    np.testing.assert_array_equal(labeler(photo, xywh, format="xywh").masks, expected)
    np.testing.assert_array_equal(labeler(photo, (box for box in BOXES)).masks, expected)
    np.testing.assert_array_equal(labeler(photo, _Tensor(xyxy)).masks, expected)


def test_slices(labeler: Labeler, photo: Path) -> None:
    result = labeler(photo, BOXES)
    np.testing.assert_array_equal(result[1:], result.masks[1:])
    assert result[:0].shape == (0, 80, 120)


def test_a_picture_of_the_caller_stays_as_it_is(labeler: Labeler, photo: Path) -> None:
    image = Image.open(photo).convert("P")
    image.info["transparency"] = 3
    labeler(image, BOXES)
    assert image.info["transparency"] == 3


def test_another_process_opens_the_model_anew(labeler: Labeler, photo: Path) -> None:
    """Threads of a runtime do not survive a fork: OpenVINO would wait for them without end."""
    expected = labeler(photo, BOXES).areas.tolist()
    assert pickle.loads(pickle.dumps(labeler))(photo, BOXES).areas.tolist() == expected
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    context, before = multiprocessing.get_context("fork"), labeler._predictor
    answers = context.Queue()

    def child() -> None:
        answers.put((labeler(photo, BOXES).areas.tolist(), labeler._predictor is before))
        labeler.close()

    process = context.Process(target=child)
    process.start()
    assert answers.get(timeout=30) == (expected, False)
    process.join(30)
    assert process.exitcode == 0 and labeler(photo, BOXES).areas.tolist() == expected


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), ()])
def test_no_boxes(labeler: Labeler, photo: Path, boxes: Any) -> None:
    result = labeler(photo, boxes)
    assert result.masks.shape == (0, 80, 120)
    assert list(result) == [] and result.rle == [] and result.areas.shape == (0,)


def test_boxes_are_clipped(labeler: Labeler, photo: Path) -> None:
    result = labeler(photo, [[-50, -50, 40, 40], [0, 0, 40, 40], [500, 500, 600, 600]])
    np.testing.assert_array_equal(result[0], result[1])
    assert not result[2].any()
    assert result.rle[2]["size"] == [80, 120]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[1, 2, 3, np.nan]], ["box 0", "nan"]),
        ([BOXES[0], [1, 2, np.inf, 4]], ["box 1"]),
        ([[5, 5, 5, 9]], ["box 0"]),
        ([[5, 5, 4, 9]], ["box 0"]),
        ([1, 2, 3, 4], ["[4]", "[N,4]"]),
        ([[1, 2, 3]], ["[1, 3]"]),
        ([[1, 2, 3], [4]], ["[N,4]"]),
        ("boxes", ["[N,4]"]),
        ([[1, 2, 3, "x"]], ["[N,4]"]),
    ],
)
def test_bad_boxes(labeler: Labeler, photo: Path, boxes: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        labeler(photo, boxes)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        None,
        [[1, 2], [3, 4]],
        b"no picture",
        "a\0b",
    ],
)
def test_bad_pictures(labeler: Labeler, picture: Any) -> None:
    with pytest.raises(InputError, match=r"picture|cannot be read"):
        labeler(picture, [[0, 0, 4, 4]])


def test_a_pillow_image_that_is_cut(labeler: Labeler, photo: Path) -> None:
    for ending in ("png", "jpeg"):
        file = io.BytesIO()
        Image.open(photo).save(file, ending)
        cut = Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))
        with pytest.raises(InputError, match=r"^picture: cannot be read \(.*truncated"):
            labeler(cut, BOXES)


def test_files_that_are_no_pictures(labeler: Labeler, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "empty.png", "none.png", "."):
        with pytest.raises(InputError) as caught:
            labeler(tmp_path / name, [[0, 0, 4, 4]])
        assert str(tmp_path) in str(caught.value)


def test_bad_options(tiny_model: Write, photo: Path) -> None:
    model = tiny_model()
    with Labeler(model, threads=1) as labeler:
        assert labeler.provider and labeler.contract.arch == "tiny"
        with pytest.raises(InputError, match="cxcywh"):
            labeler(photo, BOXES, format="cxcywh")
    for options in ({"batch": 0}, {"batch": 2.5}, {"threshold": 2}, {"threshold": (0.1, 0.2)}, {"weights": "teacher"}):
        with pytest.raises(InputError):
            Labeler(model, device="cpu", **options)
    with pytest.raises(InputError, match="device None: expected"):
        Labeler(model, device=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model None: expected"):
        Labeler(None)  # type: ignore[arg-type]
    for threshold in (np.float32(0.5), np.array([0.5, 0.5, 0.5])):
        Labeler(model, device="cpu", threshold=threshold).close()


def test_masks_is_exported() -> None:
    assert Masks((), 2, 3).masks.shape == (0, 2, 3)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mal_trt; assert 'Labeler' in dir(mal_trt); "
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'pycocotools', 'torch', 'onnx', 'timm'} & set(sys.modules); "
        "assert not heavy, heavy; from mal_trt import Labeler, label; "
        "heavy = {'onnxruntime', 'torch', 'onnx', 'timm', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = __import__("mal_trt").nothing
