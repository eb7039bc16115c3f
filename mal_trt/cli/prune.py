"""The options of `mal-trt prune`. The work itself is in `mal_trt.export.prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from mal_trt.base.errors import InputError
from mal_trt.cli.options import (
    BoxesFormatOption,
    CheckedImagesOption,
    CheckedMasksOption,
    JsonOption,
    ManyBoxesOption,
    ManyImagesOption,
    QuietOption,
    RescaleOption,
    SplitOption,
    ThreadsOption,
    needs,
    paired,
)
from mal_trt.cli.output import THE_SAME, goes_on, messages, tell

if TYPE_CHECKING:
    from mal_trt.export.prune import PruneReport


def prune(
    model: Annotated[
        str,
        Argument(
            metavar="CHECKPOINT",
            help="A checkpoint of mal-trt, TAO or NVlabs MAL, an exported .onnx file, or `bundled`.",
        ),
    ],
    boxes: ManyBoxesOption = None,
    out: Annotated[Path | None, Option("--out", "-o", help="The checkpoint (.pth) to write.")] = None,
    images: ManyImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    sparsity: Annotated[
        Literal["2:4", "none"] | None,
        Option(
            help="2:4: of every four weights two are zero, which GPUs from Ampere on can leave out. Default: 2:4, or "
            "none with --macs."
        ),
    ] = None,
    macs: Annotated[
        float | None,
        Option(
            metavar="<share>",
            help="Cut neurons, heads, channels and blocks until this share of the multiplications is left, such as "
            "0.7.",
        ),
    ] = None,
    score: Annotated[
        Literal["magnitude", "wanda", "sparsegpt"],
        Option(
            help="Which weights become zero. magnitude: the smallest. wanda: those that matter least for real crops. "
            "sparsegpt: likewise, and the other weights make up for them."
        ),
    ] = "sparsegpt",
    layers: Annotated[
        str | None,
        Option(
            metavar="<kind,...>",
            help="Layers to make 2:4 sparse: linear, pointwise (1x1 convolutions), conv (larger kernels). Default: "
            "all.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, Option(metavar="<text>", help="Leave layers with this text in their name as they are.")
    ] = None,
    recover: Annotated[
        int,
        Option(
            metavar="<crops>", min=0, help="Train on this many crops afterwards, with the dense network as the teacher."
        ),
    ] = 0,
    lr: Annotated[
        float, Option(help="Learning rate of --recover, for each box of a step: it is multiplied by the batch of 16.")
    ] = 1e-5,
    crops: Annotated[int, Option(min=16, help="How many crops the scores come from.")] = 128,
    check_crops: Annotated[int, Option(min=1, help="How many other crops the result is checked on.")] = 256,
    max_miou_drop: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            help="How much mIoU may drop, or without --annotations the agreement with the dense network's masks. "
            "Default: 0.005, without --annotations 0.02.",
        ),
    ] = None,
    annotations: CheckedMasksOption = None,
    annotation_images: CheckedImagesOption = None,
    sensitivity_crops: Annotated[
        int, Option(min=1, help="How many crops each layer is tried alone on, if not all of them can be sparse.")
    ] = 48,
    weights: Annotated[
        Literal["student", "teacher"], Option(help="Which network of a checkpoint to prune.")
    ] = "student",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Option(help="Where --recover trains. auto takes CUDA where it really works.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], Option(help="Arithmetic of --recover, as of `train`.")
    ] = "auto",
    preload: Annotated[
        bool, Option("--preload", help="Keep all decoded pictures in memory while --recover trains.")
    ] = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a network with fewer multiplications that keeps its masks: 2:4 sparse, narrower, or both.

    The result is a checkpoint, written only if its masks are those of the network that it came from.
    """
    if out is None:
        raise InputError(f"nothing says the file to write: give --out, such as --out {Path(model).stem}.pruned.pth")
    if annotation_images is not None and annotations is None:
        raise InputError("--annotation-images: give --annotations too")
    sources = paired(images, boxes, boxes_format, split, rescale)
    with needs("train", "export"):
        from mal_trt.export.prune import prune as run
        from mal_trt.export.prune_settings import PruneSettings
    from mal_trt.formats.boxes import Boxes

    settings = PruneSettings(
        sparsity=sparsity or ("2:4" if macs is None else "none"),
        macs=macs,
        score=score,
        layers=tuple(layers.split(",")) if layers else PruneSettings.layers,
        skip=tuple(skip or ()),
        recover=recover,
        lr=lr,
        crops=crops,
        check_crops=check_crops,
        max_miou_drop=max_miou_drop,
        sensitivity_crops=sensitivity_crops,
        threads=threads,
        precision=precision,
        device=device,
        preload=preload,
    )
    judged = None
    if annotations is not None:
        judged = (annotation_images or (sources[0][0] if sources else None), Boxes(annotations))
    goes_on(THE_SAME if recover else "")
    report = run(
        model, out, sources, settings, annotations=judged, weights=weights, say=messages(quiet), progress=not quiet
    )
    tell(
        lambda: {"path": report.path, "report_path": report.report_path} | report.document, lambda: _show(report), quiet
    )


def _show(report: PruneReport) -> None:
    from mal_trt.cli.prune_table import print_pruning

    print_pruning(report.document)
    typer.echo(f"{report.path}; report: {report.report_path}")
