"""`mal-trt benchmark`: options that cannot be used."""

from __future__ import annotations

import sys

import pytest

from command import call


def test_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = call("benchmark", "--plot", "r.png")
    assert done.exit_code == 1
    assert done.stderr == 'error: `mal-trt benchmark` needs matplotlib; run: pip install "mal-trt[benchmark]"\n'


def test_batches_that_are_no_numbers() -> None:
    done = call("benchmark", "--batch", "1;8")
    assert (done.exit_code, done.stderr.startswith("error: --batch 1;8: ")) == (2, True)
