from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from opened_engine import Opened


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Opens engines of a folder over doubles; its user skips where there is no onnx or onnxruntime."""
    from opened_engine import Opened

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Opened(tmp_path, monkeypatch)
