"""What the verbs that make a model take before their options: the model and the fields of a spec, as one list."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context

from mal_trt.base.errors import InputError
from mal_trt.cli.options import needs

if TYPE_CHECKING:
    from mal_trt.training.spec_use import SpecUse, Verb

FIELD = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")

ModelArguments = Annotated[
    list[str] | None,
    Argument(
        metavar="MODEL|KEY=VALUE",
        help="An .onnx file from `mal-trt export`, `bundled`, or a checkpoint; with --spec the one that it names. "
        "Then fields of the spec that are to be different.",
    ),
]


def read_arguments(arguments: Sequence[str] | None, spec: Path | None, verb: Verb) -> tuple[str, SpecUse | None]:
    """The model that stands among the arguments, or else the spec's; and the spec with its overrides, if there is one.

    A file that is there is the model, whatever it is called: checkpoints are often called `epoch=10.pth`.
    """
    fields = [text for text in arguments or () if FIELD.match(text) and not os.path.exists(text)]
    models = [text for text in arguments or () if text not in fields]
    if len(models) > 1:
        raise InputError(f"{' '.join(models)}: one model at a time; a field of the spec is given as key=value")
    if spec is None and not fields:
        if not models:
            raise InputError("nothing says the model: give it, or --spec with inference.checkpoint")
        return models[0], None
    with needs("export"):
        from mal_trt.training.spec_use import read_use
    use = read_use(spec, fields, verb)
    return (models[0] if models else use.model()), use


def out_file(out: Path | None, use: SpecUse | None, model: str, ending: str, dry_run: Context | None = None) -> Path:
    """--out, or else the file that the spec gives a verb's result, whose folder is made.

    dry_run: the context of a dry run, at whose end the folders made are removed again.
    """
    if out is not None:
        return out
    if use is None:
        raise InputError(f"nothing says the file to write: give --out, such as --out {Path(model).stem}{ending}")
    from mal_trt.base.outputs import make_folder

    made = use.made(model, ending)
    missing = [folder for folder in made.parents if not folder.exists()]
    make_folder(made.parent)
    if dry_run:
        dry_run.call_on_close(lambda: _remove(missing))
    return made


def _remove(folders: Sequence[Path]) -> None:
    """Folders from the innermost outwards, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
