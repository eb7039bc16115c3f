"""The streaming reader gives what json.loads gives, whatever the pieces it reads, and names the place of an error."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mal_trt.base.errors import InputError
from mal_trt.formats import jsonstream
from mal_trt.formats.jsonstream import BARE_LIST, STREAMED, Entry, document_entries, read_document

DOCUMENT = {
    "info": {"year": 2024, "text": 'brackets ]}" and \\ and \u00e9\u4e2d\U0001f600'},
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "nested": {"deep": [[1, [2]], {}]}}],
    "licenses": [],
    "annotations": [
        {"id": 1, "bbox": [1.5, -2e-7, 3e300, 12345678901234567890]},
        {"id": 2, "bbox": [float("inf"), float("-inf"), 0, 1], "text": "x" * 300, "none": None, "yes": True},
    ],
    "categories": [{"id": 1, "name": "one"}],
}


def rebuilt(entries: Iterable[Entry]) -> Any:
    """The document put together again from its pieces."""
    document: dict[str, Any] = {}
    for entry in entries:
        if entry.index is None:
            document[entry.key] = entry.value
        else:
            assert entry.index == len(document[entry.key])
            assert json.loads(entry.text) == entry.value
            document[entry.key].append(entry.value)
    return document.get(BARE_LIST, document)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 18])
@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("ascii", [True, False])
def test_pieces_of_any_size(
    tmp_path: Path, chunk: int, indent: int | None, ascii: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    path = tmp_path / "d.json"
    for document in (DOCUMENT, DOCUMENT["annotations"], [], {}):
        path.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii), encoding="utf-8")
        assert rebuilt(read_document(path)) == document


def test_a_document_in_memory_gives_the_same_pieces(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(DOCUMENT))
    assert list(document_entries(DOCUMENT)) == list(read_document(path))


def test_texts_are_as_written(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{ "x": 1.50,\r\n"annotations" :[ {"a" : 1e2}\t, {} ] }\n', newline="")
    texts = [(e.key, e.index, e.text) for e in read_document(path)]
    assert texts == [
        ("x", None, "1.50"),
        ("annotations", None, "[]"),
        ("annotations", 0, '{"a" : 1e2}'),
        ("annotations", 1, "{}"),
    ]


def test_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode())
    assert rebuilt(read_document(path)) == DOCUMENT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("  \n", ["empty"]),
        ("hello", ["character 0"]),
        ("3", ["a number"]),
        ('"annotations"', ["a string"]),
        ("null", ["null"]),
        ("true", ["true or false"]),
        ('{"images": {}}', ["`images`", "an object"]),
        ('{"annotations": 7}', ["`annotations`", "a number"]),
        ('{"annotations": [{}, 7]}', ["record 1 of `annotations`", "a number"]),
        ('{"images": [null]}', ["record 0 of `images`", "null"]),
        ("[[1, 2]]", ["record 0 of the list", "a list"]),
        ('{"annotations": [{}', ["character 19", "record 0"]),
        ('{"annotations": [{}, ]}', ["record 1"]),
        ('{"annotations": [{} {}]}', ["character 20", "expected , or ]"]),
        ('{"annotations": [{"a": 01}]}', ["record 0"]),
        ('{"annotations": [{"a": "x]}', ["record 0", "unterminated"]),
        ("{'annotations': []}", ["double quotes"]),
        ('{"annotations" []}', ["`annotations`", "expected :"]),
        ('{"annotations": [], "annotations": []}', ["twice"]),
        ('{"annotations": []} {}', ["more text"]),
        ("[]]", ["more text"]),
        ('{"info": ' + "[" * 100_000, ["nested too deeply"]),
        ("[" + "{" * 10, ["record 0"]),
        ('[{"a": ' + "9" * 5000 + "}]", ["record 0", "digits"]),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        list(read_document(path))
    message = str(caught.value)
    assert "bad.json" in message and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0", b'{"a": "\xff"}'])
def test_not_text(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.json: not JSON in UTF-8 text"):
        list(read_document(path))


def test_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="cannot be read"):
            list(read_document(path))


def read_text(text: str) -> Iterator[Entry]:
    return jsonstream._Reader(io.StringIO(text), "d.json").entries()


def test_cut_off_anywhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 16)
    whole = json.dumps(DOCUMENT)
    for end in range(1, len(whole)):
        with pytest.raises(InputError):
            list(read_text(whole[:end]))


def test_damaged_anywhere_is_an_error_or_valid_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 16)
    whole = json.dumps(DOCUMENT)
    chance = random.Random(0)
    for _ in range(500):
        at = chance.randrange(len(whole))
        text = whole[:at] + chance.choice(' "[]{},:1x\\') + whole[at + 1 :]
        try:
            found = rebuilt(read_text(text))
        except InputError:
            try:
                valid = json.loads(text)
            except ValueError:
                continue
            lists = [valid.get(key, []) for key in STREAMED]
            twice = len(valid) < len(DOCUMENT)
            assert twice or any(not isinstance(v, list) or any(not isinstance(r, dict) for r in v) for v in lists)
        else:
            assert found == json.loads(text)


class Counted(io.StringIO):
    taken = 0

    def read(self, size: int | None = -1, /) -> str:
        text = super().read(size)
        self.taken += len(text)
        return text


def test_an_error_is_found_without_reading_on() -> None:
    file = Counted('[{"id": 1}, {"id": nope}, ' + '{"id": 2}, ' * 1_000_000)
    with pytest.raises(InputError, match="record 1"):
        list(jsonstream._Reader(file, "d.json").entries())
    assert file.taken <= jsonstream.CHUNK


def test_a_large_record_is_not_decoded_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 64)
    attempts = 0
    decode = jsonstream._decoder.raw_decode

    class Spy:
        def raw_decode(self, text: str, at: int) -> Any:
            nonlocal attempts
            attempts += 1
            return decode(text, at)

    monkeypatch.setattr(jsonstream, "_decoder", Spy())
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"polygon": list(range(200_000))}]))
    assert len(rebuilt(read_document(path))[0]["polygon"]) == 200_000
    assert attempts < 25
