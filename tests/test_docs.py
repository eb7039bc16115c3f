"""The papers name what is there: paths in them exist, and links between them lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = ("mal_trt", "training", "export", "calibration", "engines", "tests", "examples", "benchmarks", "docs")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
NAMED = re.compile(r"`((?:mal_trt|training|export)/[\w./]+\.py)`, `(\w+)`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#([\w-]+))?\)")


def text_of(paper: Path) -> str:
    return re.sub(r"^```.*?^```", "", paper.read_text(encoding="utf-8"), flags=re.M | re.S)


def name(paper: Path) -> str:
    return paper.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("paper", PAPERS, ids=name)
def test_paths_exist(paper: Path) -> None:
    paths = {path.rstrip("/") for path in PATH.findall(text_of(paper))}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=name)
def test_links_lead_somewhere(paper: Path) -> None:
    targets = {target for target, _ in LINK.findall(text_of(paper))}
    assert [target for target in sorted(targets) if not (paper.parent / target).exists()] == []


def test_functions_named_beside_their_file_are_in_it() -> None:
    found = NAMED.findall(text_of(ROOT / "docs" / "architecture.md"))
    assert len(found) >= 2
    for path, function in found:
        assert f"def {function}(" in (ROOT / path).read_text(), f"{path} has no {function}"


def test_every_room_is_in_the_architecture() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    rooms = [f.parent.relative_to(ROOT).as_posix() for f in ROOT.glob("mal_trt/*/__init__.py")]
    assert rooms
    assert [room for room in rooms if f"`{room}`" not in text] == []
