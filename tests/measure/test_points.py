"""`evaluate --points`: shares of right points counted by hand, and every file of points that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.cli.evaluate_table import print_evaluation
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.measure.evaluate import evaluate, score_labels
from mal_trt.measure.points import ObjectPoints, hits, read_points, score_points

# 2x3 pixels from x 4, y 2 in a picture 20 wide and 10 high.
MASK = encode_rle(LocalMask(4, 2, np.ones((3, 2), bool)), 10, 20)


def truth(*ids: int, **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 2, "name": "[thing]"}],
        "annotations": [{"id": n, "image_id": 5, "category_id": 2, "bbox": [2, 2, 4, 4], **changes} for n in ids],
    }


def test_a_pixel_reaches_from_its_corner_to_the_next() -> None:
    inside = ((4, 2), (5.99, 4.99), (4.5, 3))
    outside = ((3.99, 2), (6, 2), (4, 5), (4, 1.99), (0, 0), (19.9, 9.9))
    assert hits(MASK, inside) == 3
    assert hits(MASK, outside) == 0
    assert hits(encode_rle(LocalMask(0, 0, np.zeros((0, 0), bool)), 10, 20), inside) == 0
    for x, y in ((20, 1), (1, 10)):
        with pytest.raises(ValueError, match="not in its picture of 20x10"):
            hits(MASK, ((x, y),))


def test_shares_by_hand() -> None:
    points = {
        1: ObjectPoints(((4, 2), (0, 0)), ((0, 0), (1, 1), (5, 2))),  # 1 of 2, 2 of 3
        2: ObjectPoints(((4, 2),), ((0, 0),)),
        3: ObjectPoints((), ((0, 0), (5, 2))),  # no mask: none is right, though it would be for an empty one
    }
    result = score_points(points, {1: MASK, 2: MASK}, {1: "a", 2: "b"})
    assert [entry["annotation_id"] for entry in result["objects"]] == [3, 1, 2]
    missing, half, whole = result["objects"]
    assert (missing["labelled"], missing["inside"], missing["outside"], missing["right"]) == (False, None, 0, 0)
    assert (half["inside"], half["outside"], half["right"]) == (0.5, pytest.approx(2 / 3), 0.6)
    assert (whole["class"], whole["right"], whole["labelled"]) == ("b", 1, True)
    assert (result["inside"], result["outside"], result["right"]) == (2 / 3, 0.5, 5 / 9)
    assert (result["worst"], result["count"]) == (0, 9)


def test_no_mask_need_be_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    points = {1: ObjectPoints(((4, 2), (7, 2)), ((0, 0),)), 2: ObjectPoints(((4, 2),), ())}
    result = score_labels(truth(1, 2), [{"id": 1, "segmentation": MASK}], points=points)
    assert (result["count"], result["miou"], result["recall"]) == (0, None, None)
    assert result["points"]["right"] == 0.5
    print_evaluation(result)
    screen = capsys.readouterr().out
    assert "Mask quality" not in screen and "WARNING" not in screen
    for part in ("[thing] (id 2), not labelled", "[thing] (id 1)", "66.7 %", "all 4 points", "50.0 %"):
        assert part in screen
    with pytest.raises(NothingDone, match="nothing to score"):
        score_labels(truth(1, 2), [{"id": 1, "segmentation": MASK}])


def test_points_beside_drawn_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "truth.json": truth(1, segmentation=MASK),
        "labels.json": [{"id": 1, "segmentation": MASK}],
        "points.json": {"info": {}, "points": [{"annotation_id": 1, "inside": [[4, 2]], "outside": [[9, 9]]}]},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    out = tmp_path / "figures.json"
    given = {"labels": tmp_path / "labels.json", "points": tmp_path / "points.json", "json_out": out}
    result = evaluate(None, tmp_path / "truth.json", **given)
    assert json.loads(out.read_text()) == result
    assert result["points"]["right"] == result["recall"] == result["precision"] == 1
    print_evaluation(result)
    assert "Mask quality" in (screen := capsys.readouterr().out) and "all 2 points" in screen


def test_points_of_another_data_set() -> None:
    labels = [{"id": 1, "segmentation": MASK}]
    with pytest.raises(InputError, match=r"annotation 7, which boxes\.json does not have"):
        score_labels(truth(1), labels, "boxes.json", points={7: ObjectPoints(((1, 1),), ())})
    with pytest.raises(InputError, match=r"points of annotation 1: the point \[30, 1\] is not in its picture of 20x10"):
        score_labels(truth(1), labels, points={1: ObjectPoints(((30, 1),), ())})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no list of points; expected"),
        ('{"points": []}', "no list of points"),
        ('{"points": [3]}', r"points\[0\] has no annotation_id"),
        ('{"points": [{"annotation_id": true, "inside": [[1, 2]]}]}', r"points\[0\] has no annotation_id"),
        ('{"points": [{"annotation_id": 1, "inside": [[1]]}]}', "annotation 1: inside is not a list"),
        ('{"points": [{"annotation_id": 1, "outside": [[1, -2]]}]}', "annotation 1: outside is not a list"),
        ('{"points": [{"annotation_id": 1, "outside": [[1, NaN]]}]}', "annotation 1: outside is not a list"),
        ('{"points": [{"annotation_id": 1, "outside": {}}]}', "annotation 1: outside is not a list"),
        ('{"points": [{"annotation_id": 1}]}', "annotation 1: no point inside or outside"),
        (
            '{"points": [{"annotation_id": 1, "insid": [[1, 2]], "outside": [[3, 4]]}]}',
            "annotation 1: the key 'insid' means nothing here; expected inside, outside",
        ),
        (
            '{"points": [{"annotation_id": 1, "inside": [[1, 2]]}, {"annotation_id": 1, "inside": [[1, 2]]}]}',
            r"points\[1\]: a second entry for annotation 1",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"points\.json: .*{said}"):
        read_points(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_points(path)
