"""Box files that are cut off, empty, mangled or hostile: a document, or one line that names the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from box_files import WRITERS
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images

Writer = Callable[[Path], Path]
EVERY = [(name, writer) for name, writers in WRITERS.items() for writer in writers]
IDS = [writer.__name__ for _, writer in EVERY]
# What breaks a reader that trusts its input.
PIECES = [
    *(b"", b"\0", b"\xff", b"\xfe\xff", b"\n", b"\r\n", b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"\xed\xa0\x80"),
    *(b'"', b"'", b"{", b"}", b"[", b"]", b",", b";", b"\t", b"<", b">", b"&", b"&a;", b"null", b"true", b'"x"', b"[]"),
    *(b"<!DOCTYPE a>", b"names:", b"- ", b": ", b"&x [*x]", b"{}", b"../", b"\xf0\x9f\x98\x80"),
]


def outcome(path: Path, pictures: Path, format: str | None) -> str:
    """What reading ends in: "read", or the one line of an InputError that names what was given."""
    try:
        boxes = Boxes(path, format)
        document = boxes.document(open_images(pictures))
        for entry in boxes.entries(open_images(pictures)):
            assert entry.key
        boxes.sha256()
    except InputError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1500
        assert str(path) in text or str(path.parent) in text
        return text
    assert all(isinstance(document[key], list) for key in ("images", "annotations"))
    return "read"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a", "b"):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("name", "writer"), EVERY, ids=IDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mangled(name: str, writer: Writer, pictures: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = writer(Path(folder) / "labels")
        files = sorted(file for file in (Path(folder) / "labels").iterdir())
        file = data.draw(st.sampled_from(files), label="file")
        content = file.read_bytes()
        start = data.draw(st.integers(0, len(content)), label="from")
        end = data.draw(st.integers(start, min(len(content), start + 40)) | st.just(len(content)), label="to")
        file.write_bytes(content[:start] + data.draw(st.sampled_from(PIECES) | st.binary(max_size=20)) + content[end:])
        forced = data.draw(st.sampled_from([None, name]), label="format")
        outcome(path, pictures, forced)


@pytest.mark.parametrize(("name", "writer"), EVERY, ids=IDS)
def test_every_cut(name: str, writer: Writer, pictures: Path, tmp_path: Path) -> None:
    path = writer(tmp_path / "labels")
    file = path if path.is_file() else min(path.iterdir())
    content = file.read_bytes()
    for end in range(0, len(content), max(1, len(content) // 25)):
        file.write_bytes(content[:end])
        outcome(path, pictures, name)
        outcome(path, pictures, None)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe", b"\0" * 100, b"\x89PNG\r\n\x1a\n", b"hello\n"])
def test_files_of_something_else(name: str, content: bytes, pictures: Path, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    ending = {"yolo": ".txt", "kitti": ".txt", "voc": ".xml", "cvat": ".xml", "csv": ".csv"}.get(name, ".json")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / f"a{ending}").write_bytes(content)
    outcome(tmp_path / "labels", pictures, name)
    outcome(tmp_path / "labels" / f"a{ending}", pictures, name)
    outcome(tmp_path / "labels" / f"a{ending}", pictures, None)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(alphabet="0123456789.-e \tnaif,;:/\\cat\"'", max_size=40), max_size=6))
def test_any_text_as_labels(lines: list[str], pictures: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels"
        path.mkdir()
        (path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
        (path / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        for format in (None, "yolo", "kitti", "csv"):
            outcome(path, pictures, format)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.sampled_from(["", "a.png", "1", "rect", "polygon"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("images", "annotations", "categories", "id", "image_id", "bbox", "file_name", "width", "height"),
                    *(
                        "shapes",
                        "points",
                        "shape_type",
                        "label",
                        "imagePath",
                        "data",
                        "image",
                        "result",
                        "value",
                        "x",
                        "y",
                    ),
                    *("filename", "regions", "shape_attributes", "region_attributes", "name", "rectanglelabels"),
                    *("_via_img_metadata", "file", "metadata", "project", "view", "xy", "vid", "av", "rotation"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=JSON)
def test_any_json(content: object, pictures: Path) -> None:
    import json

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(content))
        for format in (None, "labelme", "label-studio", "via", "coco"):
            outcome(path, pictures, format)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.recursive(
        st.builds(
            lambda tag, keys, text: f"<{tag} {' '.join(keys)}>{text}</{tag}>",
            st.sampled_from(["box", "polygon", "object", "name", "bndbox", "xmin", "filename", "size", "width", "tag"]),
            st.sets(
                st.sampled_from(['xtl="1"', 'ytl="x"', 'xbr="3"', 'label="a"', 'points="1,2;3"', 'frame="z"']),
                max_size=3,
            ),
            st.sampled_from(["", "1", "nan", "cat", "1e999"]),
        ),
        lambda inner: st.builds(
            lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>",
            st.sampled_from(["image", "track", "meta", "object", "bndbox", "size", "annotation"]),
            st.lists(inner, max_size=4),
        ),
        max_leaves=12,
    ),
    root=st.sampled_from(["annotation", "annotations", "other"]),
)
def test_any_xml(tree: str, root: str, pictures: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        path.write_text(f"<{root}>{tree}</{root}>")
        for format in (None, "voc", "cvat"):
            outcome(path, pictures, format)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="names:trivald[]{}&*!|>-,#'\" \n\t01/.\\", max_size=80))
def test_any_yaml(text: str, pictures: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "labels").mkdir()
        (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        (root / "data.yaml").write_text(f"names: [cat]\ntrain: images\n{text}")
        outcome(root, pictures, None)
        outcome(root / "data.yaml", pictures, None)
