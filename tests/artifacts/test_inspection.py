"""What `inspect` says of a model file."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from mal_trt.artifacts.models import resolve_model
from mal_trt.cli import app


def test_the_bundled_model_by_its_name() -> None:
    result = CliRunner().invoke(app, ["inspect", "bundled", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["bytes"] == resolve_model("bundled").stat().st_size
