"""What every test shares: `gpu` tests are skipped where there is no usable GPU, and say why."""

from __future__ import annotations

import os
import signal

import pytest

from mal_trt.base.gpu import find_gpus

pytest_plugins = ["bucket", "label_data", "serving"]


def pytest_configure() -> None:
    # A shell's background jobs start with interrupts ignored, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Masks must not depend on what is installed beside; tests of OpenVINO name it.
    os.environ["MAL_TRT_BACKEND"] = "onnxruntime"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = [item for item in items if item.get_closest_marker("gpu") is not None]
    if not wanted:
        return
    machine = find_gpus(free=False)
    if machine.gpu is None:
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {machine.problem}"))
