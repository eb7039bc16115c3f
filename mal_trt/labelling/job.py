"""What a run labels, how, and where it writes: checked before any work, for `label`, its dry run and shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError
from mal_trt.base.files import NOTHING, REGULAR, file_kind
from mal_trt.base.outputs import check_outside
from mal_trt.formats.boxes import Boxes, BoxesLike, as_boxes
from mal_trt.formats.images import ImageSource, open_images, place_key
from mal_trt.labelling.predictor import batch_size, check_device
from mal_trt.labelling.run_record import check_beside
from mal_trt.labelling.workers import InProcess, Processes, Settings, open_workers
from mal_trt.labelling.write_overlays import check_overlays
from mal_trt.writers.formats import ending


@dataclass(frozen=True)
class LabelOutputs:
    """What a run writes: labels at `out` in some formats, what belongs beside them, and overlays. resume: an earlier
    run of the same may have begun there."""

    out: Path
    formats: Sequence[str]
    overlay: Path | None = None
    resume: bool = False

    @property
    def journal(self) -> Path:
        """The journal of the run, beside its output."""
        return self.out.with_name(self.out.name + ".journal")

    @property
    def folders(self) -> list[Path]:
        """The folders that must be there."""
        return [self.out.parent, *([] if self.overlay is None else [self.overlay])]

    @property
    def finished(self) -> bool:
        """Whether a run that goes on has nothing to do."""
        return self.resume and self.out.exists() and not self.journal.exists()

    def check(self) -> None:
        """InputError if a run could not write there, or would write over something."""
        if self.out.name in ("", ".."):
            raise InputError(f"{self.out}: a folder without a name of its own; --out takes a name for what is written")
        longest = self.journal.with_name(self.journal.name + "-wal")  # of the names that a run makes beside its output
        if (kind := file_kind(longest)) not in (NOTHING, REGULAR):
            raise InputError(f"{self.out}: cannot be written ({kind}); choose another --out")
        if self.out.is_dir() and ending(self.formats):
            raise InputError(f"{self.out}: a folder; --out takes the name of a file")
        if self.overlay is not None:
            check_outside(self.overlay, self.out, "overlays a folder")
        if self.resume:
            return
        if self.journal.exists():
            raise InputError(f"{self.journal}: an unfinished run; add --resume to go on, or delete it to start over")
        if self.out.exists():
            raise InputError(f"{self.out}: exists and is never overwritten; delete it, or choose another --out")

    def check_apart(self, boxes: Boxes, images: str | Path, image_list: str | Path | None) -> None:
        """InputError if an output would take the place of an input."""
        check_beside(self.out, (boxes.path, image_list))
        check_overlays(self.overlay, images, self.resume)


@dataclass(frozen=True)
class LabelJob:
    """What is labelled and how. batch: boxes that the network sees at once; None: what suits the model."""

    boxes: Boxes
    images: str | Path
    image_list: str | Path | None
    settings: Settings
    device: str
    batch: int | None

    @cached_property
    def source(self) -> ImageSource:
        """The pictures of `images`; of many tar files it takes a while to open."""
        return open_images(self.images)

    @staticmethod
    def prepare(
        images: str | Path | None,
        boxes: BoxesLike,
        settings: Settings,
        device: str,
        batch: int | None,
        image_list: str | Path | None = None,
        outputs: LabelOutputs | None = None,
    ) -> LabelJob:
        """From the arguments of `label`; outputs None: shards, whose pictures each worker opens. InputError if
        something cannot be used. The model comes last, since a checkpoint takes a while to become one."""
        check_device(device)
        if batch is not None:
            batch_size(batch, None)
        if outputs is not None:
            outputs.check()
        boxes = as_boxes(boxes)
        job = LabelJob(boxes, boxes.home() if images is None else images, image_list, settings, device, batch)
        if outputs is not None:
            outputs.check_apart(boxes, job.images, image_list)
            _ = job.source  # which shows whether there are pictures
        return replace(job, settings=replace(settings, model=resolve_model(settings.model, settings.weights)))

    def facts(self) -> dict[str, str]:
        """What decides which masks come out, by name: a run that goes on must have the same."""
        return {
            "boxes": self.boxes.sha256(),
            "image list": "none" if self.image_list is None else file_sha256(self.image_list),
            "images": place_key(self.images),
            "batch": str(self.batch),
            **self.settings.facts(),
            **({"rescale": "True"} if self.boxes.rescale else {}),
        }

    def open_workers(self) -> InProcess | Processes:
        """Workers that label it; to be closed."""
        return open_workers(self.settings, self.device, self.images, self.source)
