"""SIGTERM ends any command like Ctrl-C: one line, 130, and no file that it only needed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

# Sends the signal when a function is called that the command needs. Some libraries turn what then happens into errors.
ENDED = """
import importlib, os, signal, sys, time
module, name, instead, *words = sys.argv[1:]
sys.argv = ["mal-trt", *words]

def end(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except KeyboardInterrupt:
        if instead == "True":
            raise ImportError("initialization failed")
        raise

setattr(importlib.import_module(module), name, end)
from mal_trt.cli import main
main()
"""


@pytest.mark.parametrize("instead", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("mal_trt.report.write", "page", ["report", "boxes.json", "--out", "report"]),
        ("mal_trt.labelling.convert", "read_masks", ["convert", "boxes.json", "-o", "new.json"]),
        ("mal_trt.measure.doctor", "examine", ["doctor"]),
    ],
)
def test_being_ended_leaves_nothing(scene: Path, module: str, name: str, words: list[str], instead: bool) -> None:
    images = [] if words[0] == "doctor" else ["--images", "pictures"]
    before, temporary = sorted(scene.rglob("*")), scene.with_name(f"{scene.name}-temporary")
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ENDED, module, name, str(instead), *words, *images],
        cwd=scene,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert sorted(scene.rglob("*")) == before and not list(temporary.iterdir())
