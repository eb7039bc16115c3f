"""Experiment specs: a YAML file and key=value overrides, checked field by field, into a TrainConfig's values. What they
say to the other verbs is `spec_use`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular
from mal_trt.base.remote import as_place, is_url
from mal_trt.training.config import Precision, Recipe, TrainConfig
from mal_trt.training.spec_layouts import BLOCK, CHECKPOINT, OLD_NAMES, SERVICE, plain_name
from mal_trt.training.spec_schema import Spec

CHOICES: dict[str, tuple[str, ...]] = {
    "dataset.type": ("coco", "yolo", "voc"),
    "train.recipe": get_args(Recipe),
    "train.precision": get_args(Precision),
    "train.teacher_weights": ("student", "teacher", "mixed"),
    "train.optim_type": ("adamw",),
    "train.checkpoint_interval_unit": ("epoch", "step"),
}
# (field, how many values it takes)
LENGTHS = {
    "train.optim_betas": (2,),
    "train.margin_rate": (2,),
    "train.test_margin_rate": (1, 2),
    "train.mask_thres": (1, 3),
    "train.colour": (2,),
    "train.prior_weight": (2,),
    "dataset.sizes": (3,),
}
PATHS = ("priors", "targets", "cutouts", "teacher", "teacher_cache", "start_from", "resume_from")


@dataclass(frozen=True)
class Checked:
    """A spec whose fields are all known and of the right type.

    values: of every field, by its dotted name, the default where the spec says nothing. places: file, line and name of
    the fields that it says, as a message begins; `checkpoint` is among them where that stands at the top. service:
    whether it is a spec of the data services.
    """

    values: dict[str, Any]
    places: dict[str, str]
    service: bool = False

    def path(self, name: str) -> str | None:
        """A field that names a file or folder, None where the spec does not; InputError if nothing is there."""
        value = self.values[name] if name in self.places else None
        if not value:
            return None
        for path in value if isinstance(value, list) else [value]:
            if not is_url(path) and not Path(str(path)).exists():
                raise InputError(f"{self.places[name]}: {path}: no such file or folder")
        return str(value)


def read_spec(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """TrainConfig's values that a spec file and overrides ("train.lr=1e-6") set; no others.

    Raises InputError naming file, line and field.
    """
    return train_values(read_checked(path, overrides))


def read_checked(path: Path | None, overrides: Sequence[str] = ()) -> Checked:
    """The fields of a spec file, overrides put over them; InputError naming file, line and field."""
    spec = OmegaConf.structured(Spec)
    places: dict[str, str] = {}
    service = False
    if path is not None:
        content, lines = _load(path)
        service = SERVICE in content
        if service and content[SERVICE] != BLOCK:
            where = f"{path}:{lines[SERVICE]}: {SERVICE}"
            raise InputError(f"{where}: {content[SERVICE]!r}; mal-trt does what {BLOCK!r} stands for")
        for name, value in _leaves(content, service):
            _set(spec, name, value, f"{path}:{lines.get(name, 1)}: {name}", places, service)
    for text in overrides:
        name, equals, _ = text.partition("=")
        if not equals or not name:
            raise InputError(f"{text}: expected key=value, such as train.lr=1e-6")
        try:
            content = OmegaConf.from_dotlist([text])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise InputError(f"{text}: cannot be read ({_line(error)})") from None
        for leaf, value in _leaves(content, service):
            _set(spec, leaf, value, leaf, places, service)
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(spec, resolve=True))
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {_line(error)}") from None
    return Checked({name: _at(plain, name) for name, _ in _fields(Spec())}, places, service)


def spec_text(config: TrainConfig) -> str:
    """A commented spec with a configuration's values; `read_spec` gives them back."""
    spec = OmegaConf.structured(Spec)
    values = asdict(config)
    for name, entry in _fields(Spec()):
        to = entry.metadata.get("to")
        if to is not None and values[to] is not None:
            OmegaConf.update(spec, name, _written(values[to]))
    spec.model.not_adjust_scale = not config.adjust_scale
    spec.model.mask_head_out_channel = config.head_out or config.head_width
    spec.train.test_margin_rate = [config.test_margin] * 2
    spec.train.use_amp = config.precision != "fp32"
    spec.train.precision = None if config.precision == "auto" else config.precision
    spec.evaluate.use_teacher_test = config.val_weights == "teacher"
    spec.evaluate.use_mixed_model_test = config.val_weights == "mixed"
    lines = ["# mal-trt train -e THIS_FILE; fields marked + are mal-trt's own, all others NVIDIA TAO's.", ""]
    return "\n".join([*lines, *_commented(Spec(), spec, "")]) + "\n"


def _commented(schema: Any, node: DictConfig, indent: str) -> Iterator[str]:
    for entry in fields(schema):
        value = getattr(schema, entry.name)
        if is_dataclass(value):
            if entry.name in ("inference",):
                continue
            yield f"{indent}{entry.name}:"
            yield from _commented(value, node[entry.name], indent + "  ")
        elif not entry.metadata["help"].startswith("of TAO's"):
            mark = "+ " if entry.metadata["own"] else ""
            plain = OmegaConf.to_container(OmegaConf.create({"x": node[entry.name]}))
            assert isinstance(plain, dict)
            text = yaml.safe_dump(plain["x"], default_flow_style=True).removesuffix("...\n").strip()
            yield f"{indent}{entry.name}: {text}  # {mark}{entry.metadata['help']}"


def _load(path: Path) -> tuple[DictConfig, dict[str, int]]:
    """The file's content and the line of every field, by its dotted name."""
    try:
        with open_regular(path) as file:
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    no_spec = InputError(f"{path}: not a spec: expected fields such as `train:`; see mal-trt train --print-spec")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if not (tree is None or isinstance(tree, yaml.MappingNode)):
            raise no_spec
        content = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML ({error.problem})") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({_line(error)})") from None
    if not isinstance(content, DictConfig):
        raise no_spec
    return content, dict(_lines(tree, ""))


def _lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in getattr(node, "value", ()) if isinstance(node, yaml.MappingNode) else ():
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        yield from _lines(value, f"{name}.")


def _leaves(content: DictConfig, service: bool) -> list[tuple[str, Any]]:
    """(dotted name, value) of a document's fields, down to where the schema has no more."""
    plain = OmegaConf.to_container(content)
    assert isinstance(plain, dict)
    groups = {name for name, entry in _fields(Spec(), groups=True) if entry.metadata.get("help") is None}
    if service:
        groups = {BLOCK, *(f"{BLOCK}.{name}" for name in groups)}

    def walk(values: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and name in groups:
                yield from walk(value, f"{name}.")
            elif not (value is None and name in groups):  # an empty section
                yield name, value

    # What stands beside the block is the services' own and counts for more.
    return (
        sorted(walk(plain, ""), key=lambda leaf: not leaf[0].startswith(f"{BLOCK}.")) if service else [*walk(plain, "")]
    )


def _fields(schema: Any, prefix: str = "", groups: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted name, dataclass field) of every field; with `groups` the sections too."""
    for entry in fields(schema):
        value = getattr(schema, entry.name)
        if is_dataclass(value):
            if groups:
                yield f"{prefix}{entry.name}", entry
            yield from _fields(value, f"{prefix}{entry.name}.", groups)
        else:
            yield f"{prefix}{entry.name}", entry


def _set(spec: DictConfig, name: str, value: Any, where: str, places: dict[str, str], service: bool) -> None:
    """Set one field, its type checked, and note where it was said."""
    plain = plain_name(name, service)
    if plain is None:
        return
    name = OLD_NAMES.get(plain, plain)
    known = [known for known, _ in _fields(Spec(), groups=True)]
    if name not in known:
        raise InputError(f"{where}: no such field{_nearest(name, known)}")
    if value == "???":  # "to be filled in", for a verb that is not run here
        return
    try:
        OmegaConf.update(spec, name, value)
    except OmegaConfBaseException as error:
        raise InputError(f"{where}: {_line(error)}") from None
    checked = OmegaConf.select(spec, name, throw_on_resolution_failure=False)
    if name in CHOICES and checked is not None and checked not in CHOICES[name]:
        raise InputError(f"{where}: {checked!r}; expected {' or '.join(CHOICES[name])}")
    if name in LENGTHS and checked is not None and len(checked) not in LENGTHS[name]:
        raise InputError(f"{where}: {len(checked)} values; expected {' or '.join(map(str, LENGTHS[name]))}")
    places[name] = where
    if plain == CHECKPOINT:
        places[CHECKPOINT] = where


def _nearest(name: str, known: Sequence[str]) -> str:
    """The field that was probably meant: of the same section, or of another."""
    section, _, leaf = name.rpartition(".")
    beside = [k for k in known if k.rpartition(".")[0] == section]
    found = difflib.get_close_matches(name, beside, 1, 0.6)
    found = found or [k for k in known if k.rpartition(".")[2] == leaf] or difflib.get_close_matches(name, known, 1)
    return f"; did you mean {found[0]}?" if found else "; see mal-trt train --print-spec"


def train_values(checked: Checked) -> dict[str, Any]:
    """TrainConfig's values from the given fields of a checked spec."""
    flat, given = checked.values, checked.places.keys()
    values: dict[str, Any] = {}
    for name, entry in _fields(Spec()):
        if name in given and entry.metadata["to"] is not None:
            values[entry.metadata["to"]] = _converted(entry.metadata["to"], flat[name])
    if values.get("precision", "") is None:
        del values["precision"]
    if "train.use_amp" in given and "precision" not in values:
        values["precision"] = "auto" if flat["train.use_amp"] else "fp32"
    if "model.not_adjust_scale" in given:
        values["adjust_scale"] = not flat["model.not_adjust_scale"]
    if "train.test_margin_rate" in given:
        values["test_margin"] = flat["train.test_margin_rate"][0]
    if given & {"train.checkpoint_interval", "train.checkpoint_interval_unit"}:
        interval, steps = flat["train.checkpoint_interval"], flat["train.checkpoint_interval_unit"] == "step"
        values["checkpoint_epochs"] = None if steps else float(interval)
        values["checkpoint_steps"] = interval if steps else None
    if given & {"evaluate.use_mixed_model_test", "evaluate.use_teacher_test"}:
        teacher = "teacher" if flat["evaluate.use_teacher_test"] else "student"
        values["val_weights"] = "mixed" if flat["evaluate.use_mixed_model_test"] else teacher
    if not flat["dataset.load_mask"]:
        values["val_boxes"] = values["val_images"] = None
    if flat["train.results_dir"]:
        values["out"] = Path(flat["train.results_dir"])
    elif flat["results_dir"]:
        values["out"] = Path(flat["results_dir"]) / "train"
    if given & {"train.num_gpus", "train.gpu_ids"}:
        values["devices"] = _devices(flat["train.num_gpus"], flat["train.gpu_ids"], given)
    return values


def _devices(count: int, ids: list[int], given: Collection[str]) -> int | tuple[int, ...]:
    if "train.gpu_ids" not in given or (len(ids) == 1 and count != 1):  # TAO's default list beside a count
        return count
    if "train.num_gpus" in given and count not in (1, len(ids)):
        raise InputError(f"train.num_gpus is {count} but train.gpu_ids lists {len(ids)}; give one of them")
    return 1 if ids == [0] else tuple(ids)


def _converted(to: str, value: Any) -> Any:
    if to in ("boxes", "images"):
        paths = value if isinstance(value, list) else [value]
        return tuple(as_place(str(p)) for p in paths if p)
    if to in ("val_boxes", "val_images"):
        return as_place(value) if value else None
    if to in PATHS:
        return Path(value) if value else None
    return tuple(value) if isinstance(value, list) else value


def _written(value: Any) -> Any:
    """A TrainConfig value as YAML has it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        plain = [_written(v) for v in value]
        return plain[0] if len(plain) == 1 and isinstance(value[0], (str, Path)) else plain
    return value


def _at(spec: Any, name: str) -> Any:
    for part in name.split("."):
        spec = spec[part]
    return spec


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
