"""These tests need the extra `serve`."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
