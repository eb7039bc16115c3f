"""What an experiment spec says to the verbs that use a model or make one: TAO's fields, in our words.

What it says to `train` is `spec.train_values`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mal_trt.artifacts.checkpoints import Choice
from mal_trt.artifacts.models import is_bundled
from mal_trt.base.errors import InputError
from mal_trt.base.remote import as_place
from mal_trt.training.spec import Checked, read_checked
from mal_trt.training.spec_layouts import CHECKPOINT

FAMILY = re.compile(r"^vit-[a-z0-9]+-")  # of vit-mae-base/16 and vit-deit-base/16: the same network
Verb = Literal["inference", "evaluate", "export", "calibrate", "build-engine"]
USERS = ("inference", "evaluate")  # TAO's own, which have a section; the others make a model of the same checkpoint
# (annotations, pictures) of each verb.
DATA: dict[str, tuple[str, str]] = {
    "inference": ("inference.ann_path", "inference.img_dir"),
    "evaluate": ("dataset.val_ann_path", "dataset.val_img_dir"),
    "calibrate": ("dataset.train_ann_path", "dataset.train_img_dir"),
}


@dataclass(frozen=True)
class SpecUse:
    """A spec as a verb uses it; `label` is "inference". Files are looked for when they are asked for, so that an
    option may stand in for one that is missing."""

    where: str
    verb: Verb
    checked: Checked

    def boxes(self) -> str | Path:
        """The boxes, or drawn masks; InputError if the spec does not say them or they are not there."""
        name = DATA[self.verb][0]
        found = self.checked.path(name)
        if found is None:
            option = "--boxes" if self.verb == "inference" else "--annotations"
            raise InputError(f"{self.where}: nothing says the boxes: give {name}, or {option}")
        return as_place(found)

    def images(self) -> str | Path | None:
        """Their pictures, None where the boxes say that."""
        found = self.checked.path(DATA[self.verb][1])
        return None if found is None else as_place(found)

    def model(self) -> str:
        """The checkpoint, or an exported model or an engine in its place."""
        if self.verb in USERS:
            names, option = [f"{self.verb}.checkpoint", CHECKPOINT, f"{self.verb}.trt_engine"], "--model"
        else:
            names, option = ["inference.checkpoint", "evaluate.checkpoint", CHECKPOINT], "a model before key=value"
        name = next((name for name in names if self._given(name)), None)
        if name is None:
            raise InputError(f"{self.where}: nothing says the model: give {names[0]}, or {option}")
        model = str(self._value(name))
        if not is_bundled(model) and not Path(model).is_file():
            raise InputError(f"{self.checked.places[name]}: {model}: no such file")
        return model

    def sources(self) -> list[tuple[str | Path, str | Path | None]]:
        """(boxes, pictures) to calibrate on: those to train on, or else those to label; none where the spec says
        neither. Pictures are None where the boxes say them."""
        for boxes, images in (DATA["calibrate"], DATA["inference"]):
            if self.checked.path(boxes) is None:
                continue
            self.checked.path(images)
            found = [_listed(self._value(name)) for name in (boxes, images)]
            places: list[str | Path | None] = [*found[1]] or [None] * len(found[0])
            if len(places) != len(found[0]):
                where = self.checked.places[images]
                raise InputError(f"{where}: {len(places)} folders of pictures for {len(found[0])} sets of boxes")
            return list(zip(found[0], places, strict=True))
        return []

    def judged_on(self) -> tuple[str | Path | None, str | Path] | None:
        """(pictures, drawn masks) to check a quantised model on, None where the spec says no masks are to be read."""
        boxes, images = DATA["evaluate"]
        found = self.checked.path(boxes)
        if found is None or not self._value("dataset.load_mask"):
            return None
        pictures = self.checked.path(images)
        return (None if pictures is None else as_place(pictures)), as_place(found)

    @property
    def names_arch(self) -> bool:
        return self._given("model.arch")

    def check_arch(self, arch: str) -> None:
        """InputError if the spec names a network of another size than the model's `arch`."""
        name = "model.arch"
        if not self.names_arch:
            return
        said = str(self._value(name))
        if FAMILY.sub("vit-", said) != FAMILY.sub("vit-", arch):
            raise InputError(f"{self.checked.places[name]}: {said}, but the model is a {arch}; leave it out")

    @property
    def choice(self) -> Choice:
        """How a checkpoint is exported for it."""
        values = self.checked.values
        ratio = values["model.mask_scale_ratio_pre"], values["model.mask_scale_ratio"]
        if ratio != (1, 2.0):
            name = "model.mask_scale_ratio" + ("_pre" if ratio[0] != 1 else "")
            raise InputError(f"{self.checked.places[name]}: {values[name]}; only networks of 1 and 2.0 are exported")
        alone = self._given("dataset.crop_size") and not self._given("dataset.sizes")
        return Choice(
            weights=self.weights or Choice.weights,
            input_size=values["dataset.crop_size"] if alone else None,
            margin=values["train.test_margin_rate"][0] if self._given("train.test_margin_rate") else None,
            head="fixed" if values["model.not_adjust_scale"] else "dynamic",
        )

    @property
    def weights(self) -> Literal["student", "teacher", "mixed"] | None:
        """Which network: TAO's inference knows the student alone. None where the spec does not say."""
        if self.verb != "evaluate":
            return None
        if self._value("evaluate.use_mixed_model_test"):
            return "mixed"
        return "teacher" if self._value("evaluate.use_teacher_test") else None

    @property
    def flip(self) -> bool:
        return self.verb == "evaluate" and bool(self._value("evaluate.use_flip_test"))

    @property
    def iou(self) -> bool:
        """Whether drawn masks are read, to write how well each mask meets them."""
        return self.verb == "inference" and bool(self._value("inference.load_mask"))

    @property
    def batch(self) -> int | None:
        name = f"{self.verb}.batch_size"
        if name not in self.checked.places:
            return None
        batch = int(self._value(name))
        if batch < 1:
            raise InputError(f"{self.checked.places[name]}: {batch}; expected 1 or more")
        return batch

    @property
    def thresholds(self) -> float | tuple[float, ...] | None:
        """One, or three for small, medium and large boxes."""
        values: list[float] = self.checked.values["train.mask_thres"]
        if not self._given("train.mask_thres"):
            return None
        return values[0] if len(values) == 1 else tuple(values)

    @property
    def boxes_format(self) -> str | None:
        return self._text("dataset.boxes_format")

    @property
    def split(self) -> str | None:
        return self._text("dataset.val_split" if self.verb == "evaluate" else "dataset.split")

    @property
    def val_split(self) -> str | None:
        """The split of the drawn masks that a quantised model is checked on."""
        return self._text("dataset.val_split")

    @property
    def rescale(self) -> bool:
        return bool(self._value("dataset.rescale"))

    def folder(self) -> Path | None:
        """Where results go: TAO's folder of the verb, or, of a spec of the data services, results_dir itself."""
        own = self._value(f"{self.verb}.results_dir") if self.verb in USERS else None
        top = self._value("results_dir")
        if own:
            return Path(own)
        if not top:
            return None
        return Path(top) if self.checked.service else Path(top) / self.verb

    def labels(self) -> Path:
        """The file of labels to write."""
        return (self.folder() or Path()) / str(self._value("inference.label_dump_path"))

    def made(self, model: str | Path, ending: str) -> Path:
        """The file that a verb makes of a model, called as it with another ending. An engine lies where the spec has
        its engine, where it says that."""
        if self.verb == "build-engine":
            for name in ("inference.trt_engine", "evaluate.trt_engine"):
                if self._given(name):
                    return Path(str(self._value(name)))
        folder = self.folder()
        if folder is None:
            raise InputError(f"{self.where}: nothing says the file to write: give --out, or results_dir")
        return folder / f"{Path(model).stem}{ending}"

    def _given(self, name: str) -> bool:
        return name in self.checked.places and bool(self._value(name))

    def _value(self, name: str) -> Any:
        return self.checked.values["train.pretrained_model_path" if name == CHECKPOINT else name]

    def _text(self, name: str) -> str | None:
        value = self._value(name)
        return str(value) if value else None


def _listed(value: Any) -> list[str | Path]:
    return [as_place(str(path)) for path in (value if isinstance(value, list) else [value]) if path]


def read_use(path: Path | None, overrides: Sequence[str], verb: Verb) -> SpecUse:
    """A spec file and key=value overrides as a verb uses them; InputError naming file, line and field."""
    return SpecUse("key=value" if path is None else str(path), verb, read_checked(path, overrides))
