"""`mal-trt label`: masks for every box of a document, resumable, nothing lost. For one picture there is `labeler`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from mal_trt.backends.choice import AUTO
from mal_trt.base.errors import NothingDone
from mal_trt.base.outputs import make_folder
from mal_trt.base.processor import usable_cores
from mal_trt.base.progress import Progress
from mal_trt.formats.boxes import BoxesLike
from mal_trt.formats.images import ImageSource
from mal_trt.formats.overlay import DISPLAY_SIDE
from mal_trt.labelling.hints import loose, nothing_usable, resized
from mal_trt.labelling.job import LabelJob, LabelOutputs
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import JournalLabels
from mal_trt.labelling.narrowing import finished_before, in_passes
from mal_trt.labelling.outputs import write_outputs, write_skipped
from mal_trt.labelling.pictures import check_there
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Threshold, batch_size
from mal_trt.labelling.read_report import read_report
from mal_trt.labelling.run_record import finished, skipped_path, write_record
from mal_trt.labelling.summary import Summary
from mal_trt.labelling.workers import InProcess, Processes, Settings
from mal_trt.labelling.write_overlays import check_side, write_overlays
from mal_trt.writers.formats import chosen
from mal_trt.writers.labels import LabelSet
from mal_trt.writers.options import Options


def label(
    images: str | Path | None,
    boxes: BoxesLike,
    model: str | Path = "bundled",
    out: str | Path = "labels.json",
    *,
    batch: int | None = None,
    device: str = "auto",
    backend: str = AUTO,
    crops: str = "auto",
    decode: str = "cpu",
    format: str | Sequence[str] = "coco",
    simplify: float | None = None,
    resume: bool = False,
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    slack: float = 0.0,
    second_pass: bool = False,
    box_area: bool = False,
    iou: bool = False,
    overlay: str | Path | None = None,
    overlay_size: int = DISPLAY_SIDE,
    image_list: str | Path | None = None,
    threads: int | None = None,
    progress: bool = True,
    then: Callable[[LabelSet, ImageSource, Summary], None] | None = None,
) -> Summary:
    """Draw a mask for every box of a data set, as `mal-trt label` does; `out` is the data set with masks.

    - `images`: a folder, a .tar or one picture. None: where the boxes say they are.
    - `boxes`: a file, a folder or the root of a data set, in any format that is read. What is not COCO becomes COCO.
    - `model`, `device`, `backend`: as for `Labeler`; several devices with commas between, "cuda:0,cuda:1", get a
      process each.
    - `out`: the file to write; for some formats, and for several, a folder. It must not exist.
    - `format`: how masks are written: "coco", "yolo" and so on, or several: "coco,yolo". `simplify`: leave out points
      of polygons that are at most this many pixels off the line.
    - `resume`: go on where a stopped run was, to the same bytes. A finished run is left as it is.
    - `threshold`: a pixel belongs to the mask above this probability. One number, three for small, medium and large
      boxes, or "tight": for each box the highest one whose mask still fills it. None: what the model asks for.
    - `flip`: average with the mirrored crop. A little better, half as fast.
    - `refine`: "color" sharpens masks by the colours in the crop, "none" does not. None: what the model asks for.
    - `weights`: "student", "teacher" or "mixed", if the model carries both.
    - `slack`: how far masks may leave their boxes on each side, as a share of the box.
    - `second_pass`: draw each mask once more, as that of its own box: for boxes that are drawn too large. Half as
      fast.
    - `box_area`: write the area of the box, not that of the mask. `iou`: write the IoU with the drawn mask, where the
      boxes have one (COCO only).
    - `overlay`: a folder for copies of the pictures with their masks drawn in, at most `overlay_size` pixels long (0:
      as large as the picture).
    - `image_list`: COCO JSON that names the pictures of a bare list of results. None: they are found by their image_id.
    - `batch`, `crops`: as for `Labeler`. `decode`: where JPEG is decoded, "cpu" or "gpu" (with nvImageCodec); "scaled":
      by the processor, at a half, a quarter or an eighth of its size where all boxes of a picture stay larger than what
      the network sees.
    - `threads`: threads of the processor, for all of the run. `progress`: show a bar.
    - `then`: called with the labels, the pictures and the summary when all is written, but not of a run that had
      finished before.

    Records without a mask are counted, and listed with their reason in `labels.skipped.json` beside `labels.json`. What
    was run is recorded in `labels.run.json`. Beside `labels.xml` they are `labels.xml.skipped.json` and so on, beside a
    folder `labels` `labels.folder.skipped.json`.

    InputError before any work if something cannot be used, or if `out` exists. RunError if the run fails; what is
    finished is kept for `resume`. NothingDone if no box could be labelled.
    """
    check_side(overlay_size)
    formats, options = chosen(format), Options(box_area, simplify, iou)
    outputs = LabelOutputs(Path(out), formats, None if overlay is None else Path(overlay), resume)
    threads = usable_cores() if threads is None else threads
    settings = Settings(model, threads, threshold, flip, refine, weights, crops, decode, slack, backend, second_pass)
    job = LabelJob.prepare(images, boxes, settings, device, batch, image_list, outputs)
    for folder in outputs.folders:
        make_folder(folder)
    given = {**job.facts(), "box area": str(box_area), **({"iou": "True"} if iou else {})}
    written = {
        "format": ",".join(formats),
        "simplify": str(simplify),
        "overlay": "none" if outputs.overlay is None else str(outputs.overlay.resolve()),
        "overlay size": "none" if outputs.overlay is None else str(overlay_size),
    }
    if outputs.finished:
        return finished(outputs.out, {**given, **written}, Path(job.settings.model), backend)
    began = datetime.now(timezone.utc)
    with Journal.resumable(outputs.journal) as journal:
        with closing(job.open_workers()) as workers, journal.guard():
            boxes_at_once = batch_size(batch, workers.opened.most)
            used = {**given, "batch": str(boxes_at_once), **workers.opened.facts}
            if journal.planned:
                journal.check(used)
            else:
                write_plan(journal, used, job.boxes, image_list, job.source, boxes_at_once)
            summary = _run(journal, workers, job, boxes_at_once, outputs, options, progress)
            if not summary.labelled:
                raise NothingDone(nothing_usable(journal, job.source, job.boxes, job.images), summary.skipped_list)
        if outputs.overlay is not None:
            with journal.guard(), Progress("drawing", journal.pictures(), unit="pictures", show=progress) as bar:
                write_overlays(journal, job.source, outputs.overlay, overlay_size, threads, bar.advance)
        write_record(summary, {**given, **written}, used, device, threads, began)
        if then is not None:
            with journal.guard():
                then(JournalLabels(journal), job.source, summary)
    return summary


def _run(
    journal: Journal,
    workers: InProcess | Processes,
    job: LabelJob,
    batch: int,
    outputs: LabelOutputs,
    options: Options,
    progress: bool,
) -> Summary:
    out, formats = outputs.out, outputs.formats
    resumed = finished_before(journal, job.settings.second_pass)
    began = time.monotonic()

    def labelling(title: str) -> None:
        planned, pending = journal.planned_boxes()
        with Progress(title, planned, planned - pending, show=progress) as bar:
            workers.run(journal, batch, bar.advance)
        check_there(journal, job.images)

    in_passes(journal, batch, job.settings.second_pass, labelling)
    seconds = time.monotonic() - began
    has_skipped = write_skipped(journal, skipped_path(out))
    labelled, total = journal.count()
    if labelled:
        with Progress("writing", labelled * len(formats), unit="masks", show=progress) as bar:
            losses = write_outputs(journal, formats, out, options, bar.advance)
    else:  # the caller says why
        losses = {}
    found = read_report(journal)
    told = [resized(journal), "" if job.settings.second_pass else loose(journal)]
    return Summary(
        total=total,
        labelled=labelled,
        skipped=journal.skipped(),
        resumed=resumed,
        seconds=seconds,
        provider=workers.opened.provider,
        precision=workers.opened.precision,
        model=Path(job.settings.model),
        out=out,
        skipped_list=skipped_path(out) if has_skipped else None,
        notes=(*workers.notes, *found.notes, *filter(None, told)),
        losses=losses,
        read=found.line,
    )
