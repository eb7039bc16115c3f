"""Triton's own description of a model's configuration, from the package `tritonclient`; skips where that is missing.

Loaded from its file: the package around it wants a gRPC and a protobuf of its own.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest


@functools.cache
def _messages() -> Any:
    pytest.importorskip("google.protobuf")
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed (test.sh does it)")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_config(text: str) -> Any:
    """A `config.pbtxt` as a ModelConfig; an unknown field or value fails."""
    from google.protobuf import text_format

    return text_format.Parse(text, _messages().ModelConfig())


def config_json(path: Path) -> dict[str, Any]:
    """As the Python backend gives it to a model."""
    from google.protobuf import json_format

    found: dict[str, Any] = json_format.MessageToDict(parse_config(path.read_text()), preserving_proto_field_name=True)
    return found
