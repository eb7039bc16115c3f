"""What every test shares: `gpu` tests are skipped where no NVIDIA driver is present."""

from __future__ import annotations

import ctypes.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ctypes.util.find_library("cuda"):
        return
    skip = pytest.mark.skip(reason="no NVIDIA driver on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
