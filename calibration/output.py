"""Writing a converted model: checked, compared, and only then given its name, with its parity file beside it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import RunError
from mal_trt.base.outputs import check_apart, check_file, not_written, write_whole

if TYPE_CHECKING:
    import onnx


def check_out(out: Path, model: Path | None = None) -> None:
    """InputError if a model cannot be written there; model: what it is made of, which must stay."""
    check_file(out, (".onnx",))
    check_file(parity_path(out))
    check_apart([out], [model])


@contextmanager
def beside(files: Mapping[Path, bytes]) -> Iterator[None]:
    """What goes beside a result, written before it: if either fails, what was there before is there again."""
    before = {path: path.read_bytes() if path.is_file() else None for path in files}
    try:
        for path, content in files.items():
            write_whole(path, content)
        yield
    except BaseException:
        for path, content_before in before.items():
            with suppress(OSError, RunError):
                if content_before is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, content_before)
        raise


@contextmanager
def scratch(out: Path, mark: str) -> Iterator[Path]:
    """Name of a temporary file beside `out` that nobody else uses, removed at the end if it is still there."""
    path = out.with_name(f".{out.stem}.{secrets.token_hex(6)}.{mark}.part{out.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model file; RunError if that fails."""
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise not_written(path, error) from None


def report_path(out: Path) -> Path:
    """The report beside a file that was made."""
    return out.with_suffix(".report.json")


def publish(part: Path, out: Path, parity: bytes, more: Mapping[Path, bytes] | None = None) -> None:
    """Give a finished model its name, and put its parity file beside it, and what else belongs to it."""
    try:
        with beside({parity_path(out): parity, **(more or {})}):
            os.replace(part, out)
    except OSError as error:
        raise not_written(out, error) from None
