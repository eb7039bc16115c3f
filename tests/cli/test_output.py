"""What verbs print: one JSON document on request, nothing when asked to be quiet, plain text where no terminal is."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from command import call
from mal_trt.cli import app
from mal_trt.cli.output import SCHEMA, plain

ROOT = Path(__file__).parents[2]


def verbs() -> list[tuple[str, Any]]:
    """Every command with the words that call it; those of `package` too."""
    root: Any = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        parts = getattr(command, "commands", None)
        found += [(f"{name} {part}", of) for part, of in parts.items()] if parts else [(name, command)]
    return found


def labelling(scene: Path, model: Path, boxes: str = "boxes.json") -> list[object]:
    source = ["--images", scene / "pictures", "--boxes", scene / boxes, "--model", model]
    return ["label", *source, "--out", scene / "labels.json", "--device", "cpu", "--threads", 1]


def run(code: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with words as the command's."""
    given = f"import sys; sys.argv = {['mal-trt', *words]!r}\n"
    command = [sys.executable, "-c", given + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("verb", "command"), verbs(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_verb_knows_json_and_quiet(verb: str, command: Any) -> None:
    options = {option for param in command.params for option in param.opts}
    assert {"--json", "--quiet", "-q"} <= options


def test_a_result_is_one_document(scene: Path, model: Path) -> None:
    done = call(*labelling(scene, model, "bad.json"), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {name: document[name] for name in ("schema", "verb", "exit")} == {
        "schema": SCHEMA,
        "verb": "label",
        "exit": 0,
    }
    result = document["result"]
    assert (result["total"], result["labelled"], sum(result["skipped"].values())) == (2, 1, 1)
    assert result["out"] == str(scene / "labels.json")
    assert json.loads(Path(result["skipped_list"]).read_text())[0]["id"] == 2


def test_a_late_failure_keeps_the_result(scene: Path, model: Path) -> None:
    done = call(*labelling(scene, model, "bad.json"), "--strict", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["exit"]) == (1, 1)
    assert document["result"]["labelled"] == 1
    assert document["error"].startswith("1 boxes skipped (--strict)")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["label", "--boxes", "nowhere.json"], "nowhere.json: cannot be read"),
        (["label", "--nonsense"], "No such option"),
        (["label", "--threads", "none"], "--threads"),
        (["inspect"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["--nonsense", "label"], "No such option"),
        (["package", "triton", "bundled"], "Missing option"),
    ],
)
def test_errors_are_documents_with_the_same_exit_code(arguments: list[str], says: str) -> None:
    plainly, machine = call(*arguments), call(*arguments, "--json")
    document = json.loads(machine.stdout)
    assert plainly.exit_code == machine.exit_code == document["exit"] == 2
    assert says in document["error"] and "result" not in document
    assert says in plainly.stderr and plainly.stdout == ""


def test_interrupts_are_documents(scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mal_trt.labelling.run.label", stop)
    done = call(*labelling(scene, model), "--json")
    assert json.loads(done.stdout)["error"] == "interrupted; run again with --resume"
    assert done.exit_code == json.loads(done.stdout)["exit"] == 130


def test_what_others_print_goes_to_standard_error(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, types\n"
        "import mal_trt.measure.doctor as doctor\n"
        "def examine():\n"
        "    print('by Python')\n"
        "    os.write(1, b'by a library\\n')\n"
        "    subprocess.run(['echo', 'by a process'])\n"
        "    return [{'value': float('nan')}]\n"
        "doctor.examine = examine\n"
        "from mal_trt.cli import main\n"
        "main()"
    )
    done = run(code, tmp_path, "doctor", "--json")
    assert json.loads(done.stdout)["result"] == {"findings": [{"value": None}]}
    assert sorted(done.stderr.split("\n")) == ["", "by Python", "by a library", "by a process"]


def test_a_bug_is_a_document_and_a_traceback(tmp_path: Path) -> None:
    code = (
        "import mal_trt.measure.doctor as doctor\ndoctor.examine = lambda: 1 / 0\nfrom mal_trt.cli import main\nmain()"
    )
    done = run(code, tmp_path, "doctor", "--json")
    assert json.loads(done.stdout) == {
        "schema": SCHEMA,
        "verb": "doctor",
        "exit": 1,
        "error": "ZeroDivisionError: division by zero",
    }
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mal_trt.cli", "examples", str(tmp_path / "e"), "--json"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard output cannot be written (No space left on device)\n",
    )


def test_help_and_version_stay_text() -> None:
    assert call("label", "--help", "--json").stdout.startswith("Usage: ")
    assert call("--version", "label", "--json").stdout.startswith("mal-trt ")


def test_values_that_json_does_not_have() -> None:
    np = pytest.importorskip("numpy")
    given = {1: (Path("a"), np.float32("inf"), np.arange(2)), "b": float("nan"), "c": {3}}
    assert plain(given) == {"1": ["a", None, [0, 1]], "b": None, "c": [3]}


def test_quiet_shows_nothing_but_errors(scene: Path, model: Path) -> None:
    assert call(*labelling(scene, model), "--quiet").output == ""
    assert call("inspect", model, "--quiet").output == ""
    again = call(*labelling(scene, model), "--quiet")
    assert (again.exit_code, again.stdout) == (2, "") and "never overwritten" in again.stderr
    assert json.loads(call("inspect", model, "-q", "--json").stdout)["result"]["kind"]


def documented(verb: str) -> set[str]:
    text = (ROOT / "docs" / "verbs" / f"{verb}.md").read_text(encoding="utf-8").partition("## JSON")[2]
    rows = [line.split("|")[1] for line in text.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_results_have_the_keys_of_their_pages(scene: Path, model: Path) -> None:
    drawn = ("--images", scene / "pictures", "--annotations", scene / "boxes.json", "--device", "cpu")
    masks = scene / "labels.json"
    fast = ("--engine-only", "--seconds", 0, "--rounds", 1, "--batch", 1, "--warm-up", 0)
    for words in (
        labelling(scene, model),
        ["convert", masks, "--out", scene / "yolo", "--format", "yolo", "--images", scene / "pictures"],
        ["evaluate", *drawn, "--model", model],
        ["compare", model, model, *drawn],
        ["benchmark", "--model", model, *drawn, *fast],
        ["doctor"],
        ["examples", scene / "examples"],
    ):
        done = call(*words, "--json", "--quiet")
        assert done.exit_code == 0, done.output
        unknown = json.loads(done.stdout)["result"].keys() - documented(str(words[0]))
        assert not unknown, f"{words[0]}: {unknown}"
        assert done.stderr == ""


BAR = """
import time
from mal_trt.base.progress import Progress
with Progress("counting", 3) as bar:
    bar.advance(3)
    time.sleep(0.3)
"""


def on_terminal(code: str, folder: Path, **variables: str) -> str:
    """What a script prints where standard error is a terminal."""
    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")} | variables
    try:
        command = [sys.executable, "-c", code]
        subprocess.run(command, cwd=folder, stdout=slave, stderr=slave, check=True, env=environment)
        return os.read(master, 1 << 16).decode()
    finally:
        os.close(master)
        os.close(slave)


def colours(text: str) -> list[str]:
    return re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;[\d;]+|9[0-7])m", text)


def test_colours_on_a_terminal_alone(tmp_path: Path) -> None:
    assert colours(on_terminal(BAR, tmp_path, TERM="xterm-256color"))
    text = on_terminal(BAR, tmp_path, TERM="xterm-256color", NO_COLOR="1")
    assert "counting" in text and not colours(text)
    assert run(BAR, tmp_path).stderr == ""


def test_tables_in_a_file_are_plain(scene: Path, model: Path) -> None:
    labels = scene / "labels.json"
    assert call(*labelling(scene, model), "--quiet").exit_code == 0
    words = ["evaluate", "--annotations", str(scene / "boxes.json"), "--labels", str(labels)]
    done = run("from mal_trt.cli import main; main()", scene, *words)
    assert "Mask quality" in done.stdout and "\x1b" not in done.stdout + done.stderr
