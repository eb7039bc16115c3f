"""Names of models: a path, or `bundled` for the one inside the package. What a model says of itself is `contract`, and
what becomes of a checkpoint `checkpoints`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mal_trt.artifacts.checkpoints import SUFFIXES, Choice, model_of
from mal_trt.base.errors import InputError

BUNDLED = "bundled"


def resolve_model(model: str | Path, weights: str | None = None) -> Path:
    """File of a model given by path or by the name `bundled`; InputError if there is none.

    A checkpoint is exported into the cache, with its `weights` "student" (also for None), "teacher" or "mixed".
    """
    if str(model) == BUNDLED:
        path = Path(str(resources.files("mal_trt"))) / "bundled" / "mal_lite0.onnx"
        if not path.is_file():
            raise InputError(
                f"this installation lacks the bundled model ({path}); reinstall, or give --model FILE.onnx"
            )
        return path
    path = Path(model)
    if not path.exists():
        raise InputError(f"{path}: no such model file; give a .onnx file, or `{BUNDLED}`")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give a .onnx file, or `{BUNDLED}`")
    if path.suffix.lower() in SUFFIXES:
        return model_of(path, Choice(weights=weights or Choice.weights))
    return path
