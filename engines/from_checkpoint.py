"""The model that an engine is built from, checked before anything is made of it; a checkpoint is exported first.

The exported model stays beside the engine: an engine without weights opens only beside the very model that it was
built from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mal_trt.artifacts.checkpoints import Choice, model_of
from mal_trt.artifacts.models import is_bundled, resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.calibration.output import beside
from mal_trt.engines.job import EngineOptions, check_output, prepare
from mal_trt.engines.precision import check_precision


def is_checkpoint(model: str | Path) -> bool:
    """Whether a model has to be exported before an engine can be built of it."""
    path = Path(model)
    return not is_bundled(model) and path.suffix.lower() != ".onnx" and path.is_file()


def exported_path(out: Path) -> Path:
    """Where the model of a checkpoint stays: `model.engine.onnx` for `model.engine`."""
    return out.with_name(f"{out.name}.onnx")


@contextmanager
def checked_model(
    model: str | Path, out: Path, options: EngineOptions, choice: Choice | None = None
) -> Iterator[str | Path]:
    """The model, or what a checkpoint was exported to; it must be possible to build that engine of it.

    choice: how a checkpoint is exported. InputError or RunError before a file is written. If the build fails, the
    files beside `out` are again as they were.
    """
    checkpoint = is_checkpoint(model)
    if checkpoint:
        check_output(out, Path(model))
    source = model_of(Path(model), choice) if checkpoint else resolve_model(model)
    contract = read_contract(source)
    check_precision(model, contract, options.precision or contract.precision, options.sources)
    prepare(model, out, options, source)
    if not checkpoint:
        yield model
        return
    onnx = exported_path(out)
    with beside({parity_path(onnx): parity_path(source).read_bytes(), onnx: source.read_bytes()}):
        yield onnx
