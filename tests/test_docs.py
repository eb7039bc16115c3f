"""The papers name what is there: paths, links, messages and options in them exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

import mal_trt
from mal_trt.cli import app

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


def test_every_public_name_is_in_the_reference() -> None:
    shown = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M)
    homes = {name: f"{module}.{name}" for name, (module, _) in mal_trt._HOMES.items()}
    homes |= dict.fromkeys(("InputError", "MalTrtError", "RunError"), "mal_trt.base.errors")
    assert set(homes) == set(mal_trt.__all__) - {"__version__"}
    assert sorted(set(homes.values())) == sorted(shown)


def messages() -> Iterator[str]:
    """Every string in the code, … where it is filled in."""
    for folder in ("mal_trt", "training", "export", "calibration", "engines"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_messages_that_are_explained_are_messages() -> None:
    said = "\n".join(messages())
    explained = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
    assert len(explained) > 30
    parts = {part.strip() for message in explained for part in message.split("…")}
    assert [part for part in sorted(parts) if part not in said] == []


def verbs() -> dict[str, Any]:
    """Every command by its words: `label`, `package triton`."""
    root: Any = typer.main.get_command(app)
    found = {}
    for verb, command in root.commands.items():
        parts = getattr(command, "commands", None)
        found |= {f"{verb} {part}": of for part, of in parts.items()} if parts else {verb: command}
    return found


def commands() -> list[tuple[str, str]]:
    """Every `mal-trt VERB ...` in a block of shell commands, with the paper it stands in."""
    found = []
    for paper in PAPERS:
        for block in re.findall(r"^```sh\n(.*?)^```", paper.read_text(encoding="utf-8"), re.M | re.S):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(name(paper), line.strip()) for line in lines if line.strip().startswith("mal-trt ")]
    return found


def test_commands_have_only_options_that_exist() -> None:
    known_verbs = verbs()
    own = {option for param in typer.main.get_command(app).params for option in param.opts}
    assert len(commands()) > 30
    for paper, command in commands():
        _, verb, *words = takewhile(lambda word: word != "|", shlex.split(command))
        if verb.startswith("-"):
            assert verb in own, f"{paper}: {command}"
            continue
        if verb not in known_verbs and words:
            verb = f"{verb} {words.pop(0)}"
        assert verb in known_verbs, f"{paper}: {command}"
        known = {option for param in known_verbs[verb].params for option in (*param.opts, *param.secondary_opts)}
        unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
        assert not unknown, f"{paper}: {command} has {unknown}"


def test_every_verb_has_a_page() -> None:
    for verb in (words for words, command in verbs().items() if not command.hidden):
        assert f"<!-- options: {verb} -->" in (ROOT / "docs" / "verbs" / f"{verb.split()[0]}.md").read_text()
