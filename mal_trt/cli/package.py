"""The options of `mal-trt package`, a command for each server. The work itself is in `packages`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from mal_trt.base.errors import InputError
from mal_trt.cli.options import JsonOption, QuietOption, tell_of_checkpoints
from mal_trt.cli.output import tell

package = typer.Typer(
    help="Write a model in the form that another server takes it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CardOption = Annotated[
    str | None,
    Option(
        "--compute-capability",
        metavar="<number>",
        help="Compute capability of the GPU that the package is for, such as 8.6. Default: this machine's, if it has "
        "one.",
    ),
]


@package.command()
def triton(
    model: Annotated[
        list[str],
        Argument(
            metavar="MODEL", help="An .onnx file, a checkpoint, `bundled`, or engines of one model for several GPUs."
        ),
    ],
    out: Annotated[Path, Option("--out", "-o", help="The model repository to write, a new folder.")],
    batch: Annotated[
        int | None,
        Option(min=1, help="Most boxes that the network sees at once. Default: what the engine takes, or 32."),
    ] = None,
    instances: Annotated[int, Option(min=1, help="Copies of the network on each GPU.")] = 1,
    labelers: Annotated[int, Option(min=1, help="Processes that cut crops and make masks.")] = 2,
    delay: Annotated[int, Option(min=0, help="Microseconds that a batch waits for more boxes.")] = 500,
    compute_capability: CardOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a model repository for Triton: crops to logits, and pictures with boxes to masks."""
    tell_of_checkpoints(quiet)
    from mal_trt.packages.triton import TritonOptions, package_triton

    options = TritonOptions(batch, instances, labelers, delay, _card(compute_capability))
    _done(out, package_triton(model, out, options), quiet)


@package.command()
def deepstream(
    model: Annotated[
        str,
        Argument(
            metavar="MODEL", help="An .onnx file, a checkpoint, `bundled`, or a TensorRT engine for float32 pixels."
        ),
    ],
    out: Annotated[Path, Option("--out", "-o", help="The new folder to write.")],
    batch: Annotated[
        int | None,
        Option(min=1, help="Most objects that the network sees at once. Default: what the engine takes, or 16."),
    ] = None,
    head: Annotated[
        Literal["small", "medium", "large"],
        Option(help="Size of the boxes that a model with a variable mask head is fixed to."),
    ] = "large",
    gie_id: Annotated[int, Option(min=1, help="Unique id of this nvinfer in the pipeline.")] = 2,
    on_gie_id: Annotated[int, Option(min=1, help="Unique id of the detector whose objects get masks.")] = 1,
    compute_capability: CardOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the config of nvinfer, the model as it takes it, and the probes that make masks."""
    tell_of_checkpoints(quiet)
    from mal_trt.packages.deepstream import DeepStreamOptions, package_deepstream

    options = DeepStreamOptions(batch, head, gie_id, on_gie_id, _card(compute_capability))
    _done(out, package_deepstream(model, out, options), quiet)


def _card(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d+\.\d", text):
        raise InputError(f"--compute-capability {text}: expected a number such as 8.6")
    return text


def _done(out: Path, files: list[str], quiet: bool) -> None:
    tell(lambda: {"out": out, "files": files}, lambda: typer.echo("\n  ".join([f"{out}:", *files])), quiet)
