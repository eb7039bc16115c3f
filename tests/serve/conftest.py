"""These tests need the extra `serve`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from serving import Server, serving
from workspace_page import DOCUMENT, Opened


@pytest.fixture
def page(serve_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A server with the tiny model on pictures and a workspace of its own; document: its boxes."""
    pictures = tmp_path_factory.mktemp("pictures")
    (pictures / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        shutil.copyfile(serve_folder / "pictures" / name, pictures / name)

    @contextmanager
    def open(document: Any = DOCUMENT, images: bool = True, **more: Any) -> Iterator[Server]:
        from mal_trt.serve.settings import Limits, ServeSettings

        low = Limits(body=1 << 20, pixels=100_000, head=1.0, body_seconds=1.0, idle=2, stalled=1.0)
        boxes = None
        if document is not None:
            boxes = tmp_path / "boxes.json"
            boxes.write_text(json.dumps(document))
        settings = ServeSettings(
            model=serve_folder / "tiny.onnx",
            images=pictures if images else None,
            boxes=boxes,
            workspace=more.pop("workspace", tmp_path / "work"),
            port=0,
            device="cpu",
            threads=1,
            limits=more.pop("limits", low),
            **more,
        )
        with serving(settings) as running:
            yield running

    return open
