"""`evaluate`: the reference's figures from its own label file, and every way records may fail to meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt import Boxes, label
from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.cli.evaluate_table import print_evaluation
from mal_trt.measure import evaluate as module
from mal_trt.measure.evaluate import evaluate, score_labels

Write = Callable[..., Any]
GOLDEN = Path(__file__).parents[1] / "golden"
TOY = json.loads((GOLDEN / "toy_coco.json").read_text())
POST = json.loads((GOLDEN / "post.json").read_text())["thres_0.1"]


def save(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def small_truth(**changes: Any) -> dict[str, Any]:
    annotation = {
        "id": 1,
        "image_id": 5,
        "category_id": 2,
        "bbox": [2, 2, 4, 4],
        "segmentation": square(2, 2, 4),
    }
    return {
        "images": [{"id": 5, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 2, "name": "thing"}],
        "annotations": [{**annotation, **changes}],
    }


def rle(runs: list[int]) -> dict[str, Any]:
    return {"size": [10, 20], "counts": runs}


EXACT = rle([22, 4, 6, 4, 6, 4, 6, 4, 144])
HALF = rle([22, 4, 6, 4, 164])


def test_golden_label_file(tmp_path: Path) -> None:
    labels = save(tmp_path / "labels.json", {**TOY, "annotations": POST["labels"]})
    out = tmp_path / "result.json"
    result = evaluate(None, GOLDEN / "toy_coco.json", labels=labels, json_out=out)
    expected = POST["metrics_batch1"]
    assert result["miou"] == pytest.approx(expected["mIoU"], abs=1e-6)
    for size, figures in zip(("small", "medium", "large"), expected["area"], strict=True):
        assert result[f"miou_{size}"] == pytest.approx(figures["mIoU"], abs=1e-6)
    assert result["count"] == 20
    assert result["skipped"] == 5  # those the reference filters out have no label
    assert json.loads(out.read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json", "result.json"]


def test_bare_list_of_labels(tmp_path: Path) -> None:
    labels = save(tmp_path / "labels.json", [{"id": 1, "segmentation": HALF}])
    result = evaluate(None, save(tmp_path / "truth.json", small_truth()), labels=labels)
    for key in ("miou", "miou_instance", "miou_small"):
        assert result[key] == pytest.approx(0.5, abs=1e-5)
    assert result["miou_medium"] is None and result["miou_large"] is None
    assert result["per_class"] == {"thing": {"iou": result["miou"], "count": 1}}
    assert result["skipped"] == 0


@pytest.mark.parametrize(
    ("change", "label", "reason"),
    [
        ({"segmentation": []}, EXACT, "no segmentation"),
        ({"segmentation": None}, EXACT, "no segmentation"),
        ({"segmentation": [[1, 2]]}, EXACT, "polygon"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, EXACT, "size"),
        ({"bbox": None}, EXACT, "bbox"),
        ({"bbox": [0, 0, 1, float("nan")]}, EXACT, "bbox"),
        ({"bbox": [0, 0, 1, 10**400]}, EXACT, "bbox has a NaN or infinite value"),
        ({"bbox": [2, 2, 0, 4]}, EXACT, "bbox has zero or negative"),
        ({"image_id": 99}, EXACT, "unknown image"),
        ({"image_id": None}, EXACT, "image_id"),
        ({"category_id": [1]}, EXACT, "category_id"),
        ({}, None, "not labelled"),
        ({}, rle([3]), "label: RLE counts"),
        ({}, "nonsense", "label: segmentation"),
        ({}, {"size": [20, 10], "counts": [200]}, "label: RLE of size"),
    ],
)
def test_what_cannot_be_scored_is_counted(change: dict[str, Any], label: Any, reason: str) -> None:
    truth = small_truth()
    odd = {**truth["annotations"][0], "id": 2, **change}
    truth["annotations"] = [*truth["annotations"], odd]
    result = score_labels(truth, [{"id": 1, "segmentation": EXACT}, {"id": 2, "segmentation": label}])
    assert result["miou"] == pytest.approx(1, abs=1e-5)
    assert (result["count"], result["skipped"]) == (1, 1)
    assert reason in next(iter(result["skipped_reasons"]))


def test_odd_records_and_duplicates() -> None:
    truth = small_truth()
    truth["annotations"] += [{**truth["annotations"][0], "bbox": [0, 0, 1, 1]}, {"id": None}, "text"]
    labels = [{"id": 1, "segmentation": EXACT}, {"id": 1, "segmentation": HALF}]
    result = score_labels(truth, labels)
    assert result["miou"] == pytest.approx(1, abs=1e-5)  # the first of both counts
    assert result["skipped_reasons"] == {"duplicate id": 1, "no usable id": 2}


def test_picture_size_may_come_from_the_label() -> None:
    truth = small_truth()
    truth["images"] = [{"id": 5, "file_name": "a.png"}]
    assert score_labels(truth, [{"id": 1, "segmentation": HALF}])["miou"] == pytest.approx(0.5, abs=1e-5)


def test_a_picture_is_the_one_that_label_takes() -> None:
    """Sizes as whole floats are sizes; of two records with one id the first counts."""
    truth = small_truth()
    truth["images"][0].update(width=20.0, height=10.0)
    truth["images"].append({"id": 5, "file_name": "b.png", "width": 30, "height": 10})
    polygons = [{"id": 1, "segmentation": square(2, 2, 4)}]
    assert score_labels(truth, polygons)["miou"] == pytest.approx(1, abs=1e-5)


def test_without_drawn_masks_nothing_is_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "label", None)
    truth = save(tmp_path / "truth.json", small_truth(segmentation=[]))
    points = save(tmp_path / "points.json", {"points": [{"annotation_id": 1, "inside": [[3, 3]]}]})
    with pytest.raises(NothingDone, match="no annotation has a drawn mask"):
        evaluate(tmp_path, truth)
    with pytest.raises(NothingDone, match="no worst one to show"):
        evaluate(tmp_path, truth, points=points, worst_out=tmp_path / "worst.png")


def test_nothing_to_score() -> None:
    with pytest.raises(NothingDone, match=r"nothing to score .*not labelled: 1"):
        score_labels(small_truth(), [{"id": 7, "segmentation": EXACT}], "truth.json")
    with pytest.raises(NothingDone, match="it is empty"):
        score_labels({**small_truth(), "annotations": []}, [])
    with pytest.raises(InputError, match="label record 0 has no `id`"):
        score_labels(small_truth(), [{"image_id": 5, "segmentation": EXACT}])


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"images": []}', '{"images": {}, "annotations": []}'])
def test_truth_that_is_no_coco_document(tmp_path: Path, text: str) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(text)
    with pytest.raises(InputError, match=r"truth\.json: not "):
        evaluate(None, truth, labels=save(tmp_path / "labels.json", []))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    truth = save(tmp_path / "truth.json", small_truth())
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        evaluate(None, tmp_path / "absent.json", labels=truth)
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        evaluate(None, truth, labels=tmp_path / "absent.json")
    with pytest.raises(InputError, match="--images"):
        evaluate(None, truth)
    with pytest.raises(InputError, match="not labels"):
        evaluate(None, truth, labels=save(tmp_path / "labels.json", 3))
    with pytest.raises(InputError, match="a folder; expected a COCO document"):
        evaluate(None, truth, labels=tmp_path)


def test_result_without_a_folder_fails_before_the_work(tmp_path: Path) -> None:
    truth = save(tmp_path / "truth.json", small_truth())
    with pytest.raises(InputError, match="folder does not exist"):
        evaluate(tmp_path, truth, json_out=tmp_path / "absent" / "result.json")


@pytest.fixture
def box_model(tmp_path: Path) -> Path:
    """A model that is sure of every pixel: its masks are the boxes."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {
        "nothing": np.array(0, np.float32),
        "sure": np.array(9, np.float32),
        "start": np.array([0, 0, 0], np.int64),
        "stop": np.array([1, 64, 64], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "step": np.array([1, 4, 4], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["image", "start", "stop", "axes", "step"], ["few"]),
            helper.make_node("Cast", ["few"], ["float"], to=kinds.FLOAT),
            helper.make_node("Mul", ["float", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "sure"], ["logits"]),
        ],
        "box",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, ["n", 1, 16, 16])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = Contract(arch="box", layout="patch", input_size=64, head="fixed", adjust_scale=False)
    helper.set_model_props(model, {METADATA_KEY: facts.to_json()})
    onnx.save(model, tmp_path / "box.onnx")
    return tmp_path / "box.onnx"


def test_model_labels_and_is_scored(tmp_path: Path, box_model: Path) -> None:
    objects = [
        (1, 3, [10, 10, 99, 99], square(10, 10, 100)),  # MAL's boxes include their far edge
        (2, 7, [150, 60, 99, 99], [[150, 60, 200, 60, 200, 160, 150, 160]]),  # half of its box
        (3, 7, [150, 60, 0, 99], square(150, 60, 20)),
    ]
    truth = {
        **{key: TOY[key] for key in ("images", "categories")},
        "annotations": [
            {"id": key, "image_id": 9, "category_id": c, "bbox": bbox, "segmentation": polygon}
            for key, c, bbox, polygon in objects
        ],
    }
    boxes = save(tmp_path / "truth.json", truth)
    options: dict[str, Any] = {"device": "cpu", "threads": 1, "progress": False}
    result = evaluate(GOLDEN, boxes, box_model, threshold=0.5, **options)
    wider = evaluate(GOLDEN, boxes, box_model, **options)  # at the model's 0.1 the soft edge counts too
    assert wider["per_class"]["alpha"]["iou"] < result["per_class"]["alpha"]["iou"] - 0.02
    assert result["per_class"]["alpha"]["iou"] == pytest.approx(1, abs=0.05)  # one crop pixel is two of the picture
    assert result["per_class"]["beta"]["iou"] == pytest.approx(0.5, abs=0.03)
    assert result["miou_large"] == result["miou"] == pytest.approx(0.75, abs=0.05)
    assert result["provider"] == "CPUExecutionProvider"
    assert result["skipped"] == 1 and "zero" in next(iter(result["skipped_reasons"]))


def test_report_shows_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    result = score_labels(TOY, POST["labels"])
    print_evaluation(result)
    screen = capsys.readouterr().out
    for part in ("alpha", "delta", "54.1 %", "recall", "precision", "5 annotations not scored"):
        assert part in screen
    assert screen.index("alpha") < screen.index("beta")  # most objects first
    many = {
        **result,
        "per_class": {f"class {i}": {"iou": 0.5, "count": 1} for i in range(50)},
        "miou_small": None,
    }
    print_evaluation(many)
    screen = capsys.readouterr().out
    assert "10 more classes" in screen and " - " in screen


def test_names_and_reasons_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    truth = small_truth()
    truth["categories"] = [{"id": 2, "name": "[/b] shoe [left]"}]
    truth["annotations"] += [
        {**truth["annotations"][0], "id": n, "segmentation": {"size": [n, n], "counts": [n * n]}} for n in range(2, 10)
    ]
    print_evaluation(score_labels(truth, [{"id": n, "segmentation": EXACT} for n in range(1, 10)]))
    screen = capsys.readouterr().out
    assert "[/b] shoe [left]" in screen
    assert "RLE of size [2, 2] for a picture of [10, 20]: 1; " in screen and "; 3 other reasons: 3)" in screen


def test_refinement_and_threshold_are_options(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model(gain=2.0)
    label(images, boxes, model, tmp_path / "truth.json", device="cpu", progress=False, refine="color")
    result = evaluate(images, tmp_path / "truth.json", model, device="cpu", progress=False, refine="color")
    assert result["miou"] == pytest.approx(1.0, abs=1e-6)
    plain = evaluate(images, tmp_path / "truth.json", model, device="cpu", progress=False)
    assert plain["miou"] < 0.999


def test_most_not_scored_is_said_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    truth = small_truth()
    truth["annotations"] = [{**truth["annotations"][0], "id": n} for n in (1, 2, 3)]
    print_evaluation(score_labels(truth, [{"id": 1, "segmentation": HALF}]))
    assert (
        capsys.readouterr().out.rstrip().endswith("WARNING: 2 of 3 boxes were NOT scored, most because: not labelled")
    )


def test_resized_pictures_keep_drawn_run_lengths(data_set: Write, tmp_path: Path, tiny_model: Write) -> None:
    images, boxes = data_set()
    out, model = tmp_path / "labels.json", tiny_model(gain=2.0)
    label(images, boxes, model, out, device="cpu", progress=False)
    for file in images.iterdir():
        Image.open(file).resize((240, 160)).save(file)
    result = evaluate(images, Boxes(out, rescale=True), model=model)
    assert result["count"] == 18 and result["skipped"] == 0


def test_ids_meet_as_label_knows_them() -> None:
    truth = small_truth(id=1.5, image_id="5", category_id="2")
    result = score_labels(truth, [{"id": 1.5, "segmentation": EXACT}])
    assert result["count"] == 1 and result["miou"] > 0.99
    assert list(result["per_class"]) == ["thing"]
    assert score_labels(small_truth(id=1.0), [{"id": 1, "segmentation": EXACT}])["count"] == 1


def test_ids_of_another_kind_are_told() -> None:
    with pytest.raises(NothingDone, match="its id is a number, that of the label is text: 1"):
        score_labels(small_truth(), [{"id": "1", "segmentation": EXACT}])


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    annotations = save(tmp_path / "truth.json", small_truth())
    labels = save(tmp_path / "labels.json", [{"id": 1, "segmentation": EXACT}])
    for out in (annotations, labels):
        with pytest.raises(InputError, match="is an input"):
            evaluate(None, annotations, labels=labels, json_out=out)
    assert json.loads(annotations.read_text()) == small_truth()


def test_labels_of_other_pictures_are_not_scored() -> None:
    square = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]
    record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "segmentation": square}
    image = {"id": 1, "file_name": "val/0001.jpg", "width": 20, "height": 20}
    truth = {"images": [image], "annotations": [record], "categories": []}
    for name in ("0001.PNG", "photos/0001.jpg", "https://host/0001.jpg", "1.jpg", None):
        assert score_labels(truth, [record], images=[{"id": 1, "file_name": name}])["count"] == 1
    for one, other in (
        ("ä b.jpg", "a\u0308%20b.JPG"),
        ("frame.v1.jpg", "x/frame.v1"),
        ("https://h/a%20b.jpg", "a b.png"),
    ):
        found = {**truth, "images": [{**image, "file_name": one}]}
        assert score_labels(found, [record], images=[{"id": 1, "file_name": other}])["count"] == 1
    twice = [image, {**image, "file_name": "0002.jpg"}]
    assert score_labels({**truth, "images": twice}, [record], images=twice)["count"] == 1
    with pytest.raises(NothingDone, match="of another picture, though of the same id: 1"):
        score_labels(truth, [record], images=[{"id": 1, "file_name": "train/0002.jpg"}])
