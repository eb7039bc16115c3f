"""Names of models: a path, or `bundled` and `bundled-edge` for those inside the package.

What a model says of itself is `contract`, and what becomes of a checkpoint `checkpoints`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mal_trt.artifacts.checkpoints import SUFFIXES, Choice, model_of
from mal_trt.base.errors import InputError
from mal_trt.base.files import NOTHING, REGULAR, file_kind

BUNDLED = "bundled"
# The models inside the package, by the names that stand for them.
INSIDE = {BUNDLED: "mal_lite0.onnx", "bundled-edge": "mal_edge.onnx"}
HINT = f"give a .onnx file, {' or '.join(f'`{name}`' for name in INSIDE)}"


def is_bundled(model: object) -> bool:
    """Whether this is the name of a model inside the package, and not a path."""
    return str(model) in INSIDE


def resolve_model(model: str | Path, weights: str | None = None) -> Path:
    """File of a model given by path or by a name such as `bundled`; InputError if there is none.

    A checkpoint is exported into the cache, with its `weights` "student" (also for None), "teacher" or "mixed".
    """
    if is_bundled(model):
        path = Path(str(resources.files("mal_trt"))) / "bundled" / INSIDE[str(model)]
        if not path.is_file():
            raise InputError(
                f"this installation lacks the model {model} ({path}); reinstall, or give --model FILE.onnx"
            )
        return path
    path = Path(model)
    kind = file_kind(path)
    if kind == NOTHING:
        raise InputError(f"{path}: no such model file; {HINT}")
    if kind != REGULAR:
        raise InputError(f"{path}: {kind}, not a model file; {HINT}")
    if path.suffix.lower() in SUFFIXES:
        return model_of(path, Choice(weights=weights or Choice.weights))
    return path
