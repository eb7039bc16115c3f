"""SIGTERM: what is open is closed, a second one disturbs nothing, and handlers are as before afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

BEGIN = """
import os, signal, sys, time
from mal_trt.base.signals import unwound_when_ended

def end(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0.1)
"""


def run(code: str, folder: Path) -> str:
    """In a process of its own, since tests may run beside the main thread, which alone takes signals."""
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_one_does_not_stop_the_tidying_up(tmp_path: Path) -> None:
    code = """
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
try:
    with unwound_when_ended() as ending:
        try:
            end()
        finally:
            end()
            print("tidied up")
except KeyboardInterrupt:
    print(ending.asked, (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before)
"""
    assert run(code, tmp_path) == "tidied up\nTrue True\n"


def test_one_that_a_library_swallowed_can_be_repeated(tmp_path: Path) -> None:
    code = """
import mal_trt.base.signals as module
module.PATIENCE = 0
for number in (signal.SIGTERM, signal.SIGINT):
    with unwound_when_ended() as ending:
        for _ in range(2):
            try:
                end(number)
            except KeyboardInterrupt:
                print(ending.asked)
"""
    assert run(code, tmp_path) == "True\n" * 4


def test_ignored_interrupts_stay_ignored(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with unwound_when_ended() as ending:
    end(signal.SIGINT)
print(ending.asked)
"""
    assert run(code, tmp_path) == "False\n"
