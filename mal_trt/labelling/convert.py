"""`mal-trt convert`: label files that exist, written in other formats by the writers that `label` has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.outputs import check_new, make_folder
from mal_trt.base.progress import Progress
from mal_trt.formats.boxes import Boxes, BoxesLike, as_boxes
from mal_trt.formats.images import ImageProblem, ImageSource, clean_name, open_images
from mal_trt.formats.segmentations import to_rle
from mal_trt.labelling.journal import Journal, Result
from mal_trt.labelling.outputs import write_outputs, write_skipped
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.plan_chunk import Planned
from mal_trt.labelling.read_report import read_report
from mal_trt.labelling.run_record import check_beside, skipped_path
from mal_trt.writers.formats import chosen
from mal_trt.writers.options import Options

NO_MASK, UNKNOWN_SIZE = "no mask", "picture size unknown"
AGAIN = "run again"
BATCH = 1 << 20  # the plan's batches mean nothing here


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    - `total`: records in the labels; `written` and all of `skipped` make it up. `skipped`: records by reason.
    - `skipped_list`: the file that names each skipped record; None if there are none.
    - `losses`: what each format could not hold.
    - `read`: what was read. `notes`: what was left aside while reading.
    """

    total: int
    written: int
    skipped: dict[str, int]
    out: Path
    skipped_list: Path | None
    losses: dict[str, dict[str, Any]]
    read: str
    notes: tuple[str, ...] = ()


def convert(
    labels: BoxesLike,
    out: str | Path,
    format: str | Sequence[str] = "coco",
    *,
    images: str | Path | None = None,
    simplify: float | None = None,
    progress: bool = True,
) -> Converted:
    """Write the masks of a label file or folder in other formats.

    - `labels`: whatever `label` reads boxes from, with masks: polygons, or run lengths of COCO and CVAT.
    - `out`: the file to write; for some formats, and for several, a folder. It must not exist.
    - `images`: the pictures; needed only where the labels say neither how large they are nor where they lie. None: a
      picture whose size is in the labels is not looked for.
    - `format`, `simplify`: as for `label`. `progress`: show a bar.

    Records without a mask are listed with their reason beside `out`, in `labels.skipped.json` of `labels.json`.
    InputError if something given cannot be used, or if `out` exists; NothingDone if there is no mask.
    """
    out, boxes = Path(out), as_boxes(labels)
    formats, options = chosen(format), Options(simplify=simplify)
    make_folder(out.parent)
    check_new(out)
    check_beside(out, (boxes.path,))
    journal = Journal(out.with_name(f".{out.name}.converting"))
    try:
        with journal.guard():
            if journal.planned:  # left by a run that was killed
                journal.delete()
                journal = Journal(journal.path)
            source = _pictures(boxes, images)
            write_plan(journal, {}, boxes, None, source, BATCH, masks=True, look=images is not None)
            read_masks(journal, progress)
            written, total = journal.count()
            has_skipped = write_skipped(journal, skipped_path(out), AGAIN)
            if not written:
                reasons = "; ".join(f"{reason}: {count}" for reason, count in list(journal.skipped().items())[:3])
                raise NothingDone(
                    f"{boxes}: no mask in it ({reasons or 'it is empty'})"
                    + ("; masks for boxes are made by `mal-trt label`" if NO_MASK in journal.skipped() else "")
                    + ("; give --images" if UNKNOWN_SIZE in journal.skipped() else "")
                    + "".join(f"; {note}" for note in read_report(journal).notes),
                    skipped_path(out) if has_skipped else None,
                )
            with Progress("writing", written * len(formats), unit="masks", show=progress) as bar:
                losses = write_outputs(journal, formats, out, options, bar.advance, AGAIN)
            found = read_report(journal)
            return Converted(
                total=total,
                written=written,
                skipped=journal.skipped(),
                out=out,
                skipped_list=skipped_path(out) if has_skipped else None,
                losses=losses,
                read=found.line,
                notes=found.notes,
            )
    finally:
        journal.delete()


def read_masks(journal: Journal, progress: bool) -> None:
    """Give every planned box of labels the mask that its record holds, or the reason why it has none."""
    with Progress("reading", journal.planned_boxes()[0], unit="masks", show=progress) as bar:
        for chunk in journal.chunks():
            boxes = zip(chunk.seq.tolist(), chunk.image.tolist(), strict=True)
            journal.add([_result(journal, seq, chunk.pictures[image]) for seq, image in boxes])
            bar.advance(len(chunk))


def _result(journal: Journal, seq: int, picture: Planned) -> Result:
    (text,) = journal.execute("SELECT record FROM annotation WHERE seq=?", (seq,)).fetchone()
    segmentation = json.loads(text).get("segmentation")
    if not segmentation:
        return Result(seq, None, None, NO_MASK)
    try:
        rle = to_rle(segmentation, picture.height, picture.width)
    except ValueError as error:
        return Result(seq, None, None, str(error))
    from pycocotools import mask as coco

    area = int(coco.area({**rle, "counts": rle["counts"].encode("ascii")}))
    return Result(seq, json.dumps(rle, separators=(",", ":")), area)


def _pictures(boxes: Boxes, images: str | Path | None) -> ImageSource:
    if images is not None:
        return open_images(images)
    if boxes.streamed:
        return AsNamed()
    try:
        return open_images(boxes.home())
    except InputError:  # many a format says itself how large its pictures are
        return AsNamed()


class AsNamed(ImageSource):
    """Pictures that nobody looks at: each is called as the document calls it, and its size must stand there."""

    def find(self, file_name: str) -> str:
        """That name."""
        return clean_name(file_name)

    def find_stem(self, *paths: str) -> str:
        """Nothing tells the ending."""
        raise ImageProblem(UNKNOWN_SIZE, f"{paths[0]}: give --images")

    def size(self, file_name: str) -> tuple[int, int]:
        """Nothing tells it."""
        raise ImageProblem(UNKNOWN_SIZE, "it is not in the labels; give --images")

    def _list(self) -> Iterable[str]:
        return ()

    def _stream(self, name: str) -> BinaryIO:
        raise FileNotFoundError(name)
