"""Tab completion: a script for each shell, and words without slow imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "PIL", "pycocotools", "rich")
MAIN = (
    "import atexit, sys\n"
    f"atexit.register(lambda: print('HEAVY', *[m for m in {HEAVY} if m in sys.modules], file=sys.stderr))\n"
    "from mal_trt.cli import app\n"
    "app(prog_name='mal-trt')"
)


def mal_trt(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(folder), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **variables}
    command = [sys.executable, "-c", MAIN, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("shell", "contains"),
    [("bash", "complete -o default"), ("zsh", "#compdef mal-trt"), ("fish", "complete --command mal-trt")],
)
def test_scripts(shell: str, contains: str, tmp_path: Path) -> None:
    shown = mal_trt(tmp_path, "--show-completion", shell)
    assert shown.returncode == 0, shown.stderr
    assert contains in shown.stdout and "_MAL_TRT_COMPLETE" in shown.stdout
    assert shown.stderr.splitlines()[-1].strip() == "HEAVY"
    installed = mal_trt(tmp_path, "--install-completion", shell)
    assert installed.returncode == 0, installed.stderr
    scripts = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert any("_MAL_TRT_COMPLETE" in script for script in scripts)


def test_words_are_completed_without_slow_imports(tmp_path: Path) -> None:
    bash = {"_MAL_TRT_COMPLETE": "complete_bash"}
    verbs = mal_trt(tmp_path, **bash, COMP_WORDS="mal-trt la", COMP_CWORD="1")
    assert verbs.stdout.split() == ["label"]
    assert verbs.stderr.strip() == "HEAVY"
    options = mal_trt(tmp_path, **bash, COMP_WORDS="mal-trt label --over", COMP_CWORD="2")
    assert options.stdout.split() == ["--overlay", "--overlay-size"]
    values = mal_trt(tmp_path, **bash, COMP_WORDS="mal-trt label --crops ", COMP_CWORD="3")
    assert values.stdout.split() == ["auto", "cpu", "gpu"]
