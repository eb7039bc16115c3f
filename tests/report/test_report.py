"""`mal-trt report`: what stands on its pages, what is refused, what is replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mal_trt import InputError, RunError, write_report
from mal_trt.cli import app
from mal_trt.report import survey, write
from mal_trt.report.shown import REASONS
from report_pages import NAMES, Page, data_of

Labels = Callable[..., tuple[Path, Path]]


@pytest.fixture
def made(labels: Labels, tmp_path: Path) -> Path:
    path, pictures = labels()
    (tmp_path / "labels.skipped.json").write_text(
        json.dumps([{"index": 9, "id": "</td><script>", "image_id": 1, "reason": "bbox <missing>"}])
    )
    (tmp_path / "labels.run.json").write_text(json.dumps({"command": "mal-trt label <x>", "used": {"batch": "16"}}))
    done = write_report(path, pictures, tmp_path / "report", progress=False)
    assert (done.page, done.objects, done.shown) == (tmp_path / "report" / "index.html", 9, 9)
    assert (done.skipped, done.unread) == (1, 0)
    return tmp_path / "report"


def test_the_page_says_what_was_found(made: Path) -> None:
    page = Page(made)
    assert page.open == []
    assert page.cards["Masks"] == "9" and page.cards["Pictures"] == "3" and page.cards["Classes"] == "3"
    assert page.cards["Mean score"] == "77.8 %" and page.cards["Skipped"] == "1"
    assert page.cards["Command"] == "mal-trt label <x>"
    assert page.cards["bbox <missing>"] == "1"


def test_names_are_text_and_nothing_else(made: Path) -> None:
    page = Page(made)
    assert {attributes["src"] for attributes in page.of("script")} == {
        *("assets/theme.js", "assets/viewer.js", "assets/objects.js", "data/index.js")
    }
    assert page.of("img") == [] and page.of("i") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [tag for tag, attributes in page.elements if "style" in attributes]
    texts = "".join(page.texts)
    assert all(name in texts for name in NAMES)
    assert data_of(made, "index")["classes"] == list(NAMES)


def test_nothing_is_asked_of_a_network(made: Path) -> None:
    policy = next(a["content"] for a in Page(made).of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for file in made.rglob("*"):
        if file.suffix in (".html", ".js", ".css"):
            text = file.read_text(encoding="utf-8")
            assert "http:" not in text.replace("http://www.w3.org/2000/svg", "") and "https:" not in text
            assert "innerHTML" not in text and "eval(" not in text


def test_objects_stand_from_the_lowest_score_on(made: Path) -> None:
    index, entries = data_of(made, "index"), data_of(made, "page")
    assert (index["count"], index["by"], index["page"]) == (9, "score", write.PAGE)
    assert index["columns"]["score"] == [556, 611, 667, 722, 778, 833, 889, 944, 1000]
    assert [entry["id"] for entry in entries] == [f"<i>{number}" for number in reversed(range(9))]
    assert [entry["picture"] for entry in entries] == [f"{(8 - n) // 3} <b>'&.png" for n in range(9)]
    assert [index["classes"][kind] for kind in index["columns"]["class"]] == [NAMES[(8 - n) % 3] for n in range(9)]
    assert index["reasons"] == list(REASONS)
    assert [bits & 1 for bits in index["columns"]["reasons"]] == [0] * 9  # a tenth of nine is none
    assert all(entry["masks"][0].startswith("M") and entry["at"] == [4, 4, 30, 30] for entry in entries)
    for place, entry in enumerate(entries):
        with Image.open(made / "crops" / "000" / f"{place:06d}.jpg") as crop:
            assert [2 * side for side in crop.size] == entry["view"]


def test_many_objects_are_paged_and_the_rest_is_told(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "PAGE", 10)
    monkeypatch.setattr(survey.Survey.__init__, "__defaults__", (30,))
    path, pictures = labels(75, per_picture=20)
    done = write_report(path, pictures, tmp_path / "report", progress=False)
    assert (done.objects, done.shown) == (75, 30)
    assert len(list((tmp_path / "report" / "data").glob("page-*.js"))) == 3
    scores = data_of(tmp_path / "report", "index")["columns"]["score"]
    assert scores == sorted(scores) and scores[:2] == [507, 513] and scores[-1] == 1000
    assert [bits & 1 for bits in data_of(tmp_path / "report", "index")["columns"]["reasons"]] == [1] * 7 + [0] * 23
    page = Page(tmp_path / "report")
    assert page.cards["Masks"] == "75"
    assert any(text.startswith("30 of 75 objects are shown") for text in page.texts)
    assert len(list((tmp_path / "report" / "crops").rglob("*.jpg"))) == 30


def test_the_same_labels_make_the_same_bytes(labels: Labels, made: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "labels.json", tmp_path / "pictures", tmp_path / "again", threads=1, progress=False)
    files = [file.relative_to(made) for file in sorted(made.rglob("*")) if file.is_file()]
    assert len(files) > 15
    for file in files:
        assert (made / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_a_picture_that_cannot_be_read_leaves_its_masks(made: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "1 <b>'&.png").write_bytes(b"no picture")
    done = write_report(tmp_path / "labels.json", tmp_path / "pictures", made, progress=False)
    assert (done.objects, done.unread) == (9, 1)
    problems = [entry.get("problem") for entry in data_of(made, "page")]
    assert problems == [None] * 3 + ["not a picture"] * 3 + [None] * 3
    assert not (made / "crops" / "000" / "000004.jpg").exists()
    assert any("1 pictures could not be read" in text for text in Page(made).texts)


def test_only_an_earlier_report_is_replaced(made: Path, tmp_path: Path) -> None:
    run = CliRunner()
    again = ["report", str(tmp_path / "labels.json"), "--images", str(tmp_path / "pictures")]
    (made / "crops" / "left.jpg").write_text("by a longer report")
    done = run.invoke(app, [*again, "-o", str(made)])
    assert done.exit_code == 0 and done.output.endswith("9 objects, 1 records skipped; open it in a browser\n")
    assert not (made / "crops" / "left.jpg").exists()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("kept")
    refused = run.invoke(app, [*again, "-o", str(foreign)])
    assert refused.exit_code == 2 and "holds files that are no report of mal-trt" in refused.output
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]
    (made / ".DS_Store").write_text("of a file manager")
    assert run.invoke(app, [*again, "-o", str(made)]).exit_code == 0
    (made / "labels.json").write_text("labels that somebody put there")
    refused = run.invoke(app, [*again, "-o", str(made)])
    assert refused.exit_code == 2 and "(labels.json is in it)" in refused.output
    assert (made / "labels.json").exists()
    assert run.invoke(app, [*again, "-o", str(tmp_path / "labels.json")]).exit_code == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_ids_and_quality_that_are_out_of_bounds(labels: Labels, tmp_path: Path) -> None:
    path, pictures = labels(3)
    document = json.loads(path.read_text())
    lies = (
        {"score": 1e9, "box_share": 0.5, "edges": 1e9, "parts": 1},
        {"score": float("inf"), "box_share": float("nan"), "edges": float("inf"), "parts": 1},
        {"score": -3, "box_share": 0.5, "edges": 2, "parts": -1},
    )
    for number, (record, lie) in enumerate(zip(document["annotations"], lies, strict=True)):
        record |= {"id": (1 << 53) + 1 + number, "quality": lie}
    path.write_text(json.dumps(document))
    write_report(path, pictures, tmp_path / "report", progress=False)
    entries, index = data_of(tmp_path / "report", "page"), data_of(tmp_path / "report", "index")
    assert [entry["id"] for entry in entries] == [str((1 << 53) + 1 + n) for n in range(3)]  # JavaScript would round
    assert index["columns"]["score"] == [-1] * 3 and index["columns"]["edges"] == [2] * 3
    assert [entry["share"] for entry in entries] == [round(side**2 / 900, 3) for side in (6, 7, 8)]


def test_paper_is_light_and_shows_whole_tables(made: Path) -> None:
    style = (made / "assets" / "report.css").read_text()
    dark = [style.rindex("@media", 0, found.start()) for found in re.finditer("--ink: #e6e9ed", style)]
    assert len(dark) == 2 and all(style[place:].startswith("@media screen") for place in dark)
    assert ".panel.tall, .panel.wide { max-height: none" in style[style.index("@media print") :]


def test_a_report_that_fails_leaves_the_earlier_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> bytes:
        raise OSError(28, "No space left on device")

    before = (made / "index.html").read_bytes()
    monkeypatch.setattr(write, "page", full)
    with pytest.raises(RunError, match="the report cannot be written"):
        write_report(tmp_path / "labels.json", tmp_path / "pictures", made, progress=False)
    assert (made / "index.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_labels_without_masks_are_refused(labels: Labels, tmp_path: Path) -> None:
    path, pictures = labels(2)
    document = json.loads(path.read_text())
    for record in document["annotations"]:
        del record["segmentation"]
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"no mask to show \(no mask: 2\); masks for boxes are made by `mal-trt label`"):
        write_report(path, pictures, tmp_path / "report", progress=False)
    assert not (tmp_path / "report").exists()
    with pytest.raises(InputError, match=r"none\.json"):
        write_report(tmp_path / "none.json", pictures, tmp_path / "report", progress=False)


@pytest.mark.parametrize("format", ["yolo", "coco-polygons", "labelme"])
def test_other_formats_are_shown_too(labels: Labels, tmp_path: Path, format: str) -> None:
    from mal_trt import convert

    path, pictures = labels()
    convert(path, tmp_path / "other", format, progress=False)
    done = write_report(tmp_path / "other", pictures, tmp_path / "report", progress=False)
    assert (done.objects, done.skipped) == (9, 0)
