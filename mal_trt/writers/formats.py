"""The formats that masks can be written in, by the names that `--format` knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mal_trt.base.errors import InputError
from mal_trt.writers.coco import write_coco, write_coco_polygons
from mal_trt.writers.cvat import write_cvat
from mal_trt.writers.geojson import write_geojson
from mal_trt.writers.label_studio import write_label_studio
from mal_trt.writers.labelme import write_labelme
from mal_trt.writers.labels import LabelSet
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.parquet import check_parquet, write_parquet
from mal_trt.writers.png import write_png_instance, write_png_semantic
from mal_trt.writers.voc import write_voc
from mal_trt.writers.yolo import write_yolo


class Format(NamedTuple):
    """ending: of its file; none: a folder. write: makes a file or folder that is not there yet, and counts its losses
    and the objects that are done. check: InputError if it cannot be written here."""

    ending: str
    write: Callable[[LabelSet, Path, Options, FormatLoss, Callable[[int], None]], None]
    check: Callable[[], None] = lambda: None


FORMATS = {
    "coco": Format(".json", write_coco),
    "coco-polygons": Format(".json", write_coco_polygons),
    "yolo": Format("", write_yolo),
    "labelme": Format("", write_labelme),
    "voc": Format("", write_voc),
    "png-instance": Format("", write_png_instance),
    "png-semantic": Format("", write_png_semantic),
    "cvat": Format(".xml", write_cvat),
    "label-studio": Format(".json", write_label_studio),
    "parquet": Format(".parquet", write_parquet, check_parquet),
    "geojson": Format("", write_geojson),
}


def chosen(formats: str | Sequence[str]) -> tuple[str, ...]:
    """Names of formats, of one text with commas between or of several; InputError for what is none, or not here."""
    names = formats.split(",") if isinstance(formats, str) else formats
    found = tuple(dict.fromkeys(name.strip().lower() for name in names))
    if not found:
        raise InputError(f"no format; expected one of {', '.join(FORMATS)}, or several")
    for name in found:
        if name not in FORMATS:
            raise InputError(f"format {name}: expected one of {', '.join(FORMATS)}, or several with commas between")
        FORMATS[name].check()
    return found


def ending(formats: Sequence[str]) -> str:
    """Ending of an output's name: that of its format; none for a folder, as several formats make one."""
    return FORMATS[formats[0]].ending if len(formats) == 1 else ""


def write_formats(
    labels: LabelSet, formats: Sequence[str], path: Path, options: Options, done: Callable[[int], None]
) -> dict[str, FormatLoss]:
    """One format at `path`; several in the folder `path`, each by its format's name. What each lost."""
    losses = {name: FormatLoss() for name in formats}
    if len(formats) > 1:
        path.mkdir()
    for name in formats:
        place = path / f"{name}{FORMATS[name].ending}" if len(formats) > 1 else path
        FORMATS[name].write(labels, place, options, losses[name], done)
    return losses
