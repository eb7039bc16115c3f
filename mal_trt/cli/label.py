"""The options of `mal-trt label`. The work itself is in `labelling.run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from mal_trt.artifacts.models import BUNDLED
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import check_outside
from mal_trt.cli.options import (
    BackendOption,
    BatchOption,
    BoxesFormatOption,
    BoxesOption,
    CropsOption,
    DecodeOption,
    DevicesOption,
    DryRunOption,
    FlipOption,
    FormatOption,
    ImagesOption,
    JsonOption,
    LabelThresholdOption,
    ModelOption,
    OverridesArgument,
    QuietOption,
    RefineOption,
    ReportOption,
    RescaleOption,
    SecondPassOption,
    SimplifyOption,
    SlackOption,
    SpecOption,
    SplitOption,
    ThreadsOption,
    WeightsOption,
    model_of_spec,
    needs,
    tell_of_checkpoints,
    threshold_of,
)
from mal_trt.cli.output import WITH_RESUME, goes_on, show_skipped, tell
from mal_trt.cli.report import show_report
from mal_trt.cli.shards import GpusOption, RayOption, ShardPicturesOption, WorkersOption, label_in_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mal_trt.formats.images import ImageSource
    from mal_trt.labelling.predictor import Threshold
    from mal_trt.labelling.summary import Summary
    from mal_trt.report.write import Report
    from mal_trt.writers.labels import LabelSet

# Pictures on a contact sheet, taken evenly from all overlays where there are more.
SHEET_PICTURES = 48


def label(
    overrides: OverridesArgument = None,
    spec: SpecOption = None,
    boxes: BoxesOption = None,
    images: ImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    model: ModelOption = None,
    out: Annotated[
        str | None,
        Option(
            metavar="<path>",
            help="The file or folder to write; of shards also a URL. Default: labels, with the ending of the format.",
        ),
    ] = None,
    format: FormatOption = "coco",
    simplify: SimplifyOption = None,
    overlay: Annotated[
        Path | None, Option(help="A folder for copies of the pictures with their masks drawn in.")
    ] = None,
    overlay_size: Annotated[
        int, Option(help="Longest side of an overlay, in pixels. 0: as large as the picture.")
    ] = 1600,
    sheet: Annotated[
        Path | None, Option(help="A picture file with all overlays on one sheet; needs --overlay.")
    ] = None,
    report: ReportOption = None,
    resume: Annotated[
        bool, Option("--resume", help="Go on where a stopped run was. A finished run is left as it is.")
    ] = False,
    strict: Annotated[bool, Option("--strict", help="End with exit code 1 if any box had to be skipped.")] = False,
    box_area: Annotated[
        bool | None,
        Option(
            "--box-area/--mask-area",
            help="What `area` is: of the box, as NVIDIA TAO writes it, or of the mask. Default: of the mask, with "
            "--spec of the box.",
            show_default=False,
        ),
    ] = None,
    iou: Annotated[
        bool | None,
        Option("--iou", help="Write beside each mask its IoU with the drawn one, where there is one (COCO only)."),
    ] = None,
    image_list: Annotated[
        Path | None, Option(help="A COCO JSON file that names the pictures, if the boxes are a bare list of results.")
    ] = None,
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    slack: SlackOption = 0.0,
    second_pass: SecondPassOption = False,
    batch: BatchOption = None,
    device: DevicesOption = "auto",
    backend: BackendOption = "auto",
    crops: CropsOption = "auto",
    decode: DecodeOption = "cpu",
    threads: ThreadsOption = None,
    shard_pictures: ShardPicturesOption = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = 0.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw a mask for every box."""
    if sheet is not None and overlay is None:
        raise InputError("--sheet is made of the overlays; give --overlay DIR too")
    from mal_trt.writers.formats import chosen, ending

    formats = chosen(format)
    thresholds: Threshold = threshold_of(threshold)
    kind: str | None = boxes_format
    tell_of_checkpoints(quiet)
    if spec is not None or overrides:
        with needs("export"):
            from mal_trt.training.spec_use import read_use
        use = read_use(spec, overrides or (), "inference")
        if boxes is None:
            images = images or (None if (found := use.images()) is None else str(found))
            boxes = str(use.boxes())
        kind, split = kind or use.boxes_format, split or use.split
        rescale = rescale or use.rescale
        if out is None:
            out = str(use.labels() if ending(formats) == ".json" else use.labels().with_suffix(ending(formats)))
        thresholds = use.thresholds if thresholds is None else thresholds
        batch = batch or use.batch
        box_area = True if box_area is None else box_area
        iou = use.iou if iou is None else iou
        model = str(model_of_spec(use, model, weights))
    if boxes is None:
        raise InputError("nothing says the boxes: give --boxes, or --spec with inference.ann_path")
    from mal_trt.formats.boxes import Boxes

    given = Boxes(boxes, kind, split, rescale)
    if shard_pictures is not None or ray is not None:
        whole = {"simplify": simplify, "overlay": overlay, "sheet": sheet, "image_list": image_list, "report": report}
        whole |= {"iou": iou or None, "box_area": box_area or None, "dry_run": dry_run or None}
        label_in_shards(
            images,
            given,
            model or BUNDLED,
            out or "shards",
            {**whole, "format": None if format == "coco" else format},
            quiet,
            strict,
            shard_pictures=shard_pictures or 1000,
            ray=ray,
            workers=workers,
            gpus=gpus_per_worker,
            batch=batch,
            device=device,
            backend=backend,
            crops=crops,
            decode=decode,
            threshold=thresholds,
            flip=flip,
            refine=refine,
            weights=weights,
            slack=slack,
            second_pass=second_pass,
            threads=threads,
        )
        return
    from mal_trt.labelling.run import label as run

    target = Path(out or "labels" + ending(formats))
    options: dict[str, Any] = {
        "batch": batch,
        "device": device,
        "backend": backend,
        "crops": crops,
        "decode": decode,
        "format": format,
        "threshold": thresholds,
        "flip": flip,
        "refine": refine,
        "weights": weights,
        "slack": slack,
        "second_pass": second_pass,
        "overlay": overlay,
        "image_list": image_list,
        "threads": threads,
    }
    if sheet is not None and not (resume and target.exists()):
        from mal_trt.labelling.write_overlays import check_sheet

        check_sheet(sheet, given.home() if images is None else images)
        check_outside(sheet, target, "the sheet a place")
    if dry_run:
        if resume:
            raise InputError("--dry-run tells of a whole run; leave --resume out")
        from mal_trt.cli.dry_run import show_label
        from mal_trt.labelling.dry_run import forecast

        told = forecast(images, given, model or BUNDLED, target, **options)
        tell(lambda: vars(told) | {"boxes_per_second": told.boxes_per_second}, lambda: show_label(told), quiet)
        return
    reported: list[Report] = []
    then = None
    if report is not None:
        _check_report(report, target, (overlay, sheet))
        then = _reporter(report, threads, quiet, reported.append)
    goes_on(WITH_RESUME)
    summary = run(
        images,
        given,
        model or BUNDLED,
        target,
        simplify=simplify,
        resume=resume,
        box_area=bool(box_area),
        iou=bool(iou),
        overlay_size=overlay_size,
        progress=not quiet,
        then=then,
        **options,
    )
    if report is not None and summary.finished_before:
        from mal_trt.report.labels import write_report

        reported.append(write_report(summary.out, images, report, threads=threads, progress=not quiet))
    if sheet is not None and overlay is not None and not (summary.finished_before and sheet.exists()):
        _write_sheet(overlay, sheet)
    tell(lambda: _document(summary), lambda: _print_summary(summary), quiet)
    for written in reported:
        show_report(written, quiet)
    if strict and summary.skipped:
        count = sum(summary.skipped.values())
        raise RunError(f"{count} boxes skipped (--strict), listed in {summary.skipped_list}")


def _check_report(folder: Path, out: Path, others: Sequence[Path | None]) -> None:
    """InputError if the report and the other outputs could not lie beside each other."""
    from mal_trt.report.folder import check_report

    check_outside(folder, out, "the report a folder")
    check_report(folder, (out, *others))


def _reporter(
    folder: Path, threads: int | None, quiet: bool, done: Callable[[Report], None]
) -> Callable[[LabelSet, ImageSource, Summary], None]:
    """What writes the report of a run while it still has its labels at hand."""
    from mal_trt.report.labels import report_of_run

    return lambda labels, source, summary: done(
        report_of_run(labels, source, summary, folder, threads, progress=not quiet)
    )


def _write_sheet(folder: Path, path: Path) -> None:
    from PIL import Image

    from mal_trt.formats.overlay import contact_sheet

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    if not files:
        raise RunError(f"{folder}: holds no overlay, so there is no contact sheet")
    step = max(1, -(-len(files) // SHEET_PICTURES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([Image.open(p) for p in files[::step]]).save(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the contact sheet cannot be written ({error})") from None


def _document(summary: Summary) -> dict[str, Any]:
    return {**vars(summary), "boxes_per_second": summary.boxes_per_second, "warning": summary.warning}


def _print_summary(summary: Summary) -> None:
    if summary.read:
        typer.echo(summary.read)
    if summary.finished_before:
        typer.echo(f"{summary.out}: finished before with the same inputs, left as it is ({summary.labelled} boxes)")
        return
    typer.echo(
        f"{summary.out}: {summary.labelled} of {summary.total} boxes labelled in {summary.seconds:.1f} s "
        f"({summary.boxes_per_second:.1f} boxes/s) by {summary.provider}"
        + (f", {summary.resumed} of them done by an earlier run" if summary.resumed else "")
    )
    from mal_trt.writers.losses import describe

    for name, figures in summary.losses.items():
        if line := describe(name, figures):
            typer.echo(line)
    for note in summary.notes:
        typer.echo(f"note: {note}")
    show_skipped(summary.skipped, listed=summary.skipped_list)
    if summary.warning:
        typer.echo(summary.warning)
