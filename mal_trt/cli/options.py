"""Options and small helpers that several verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from mal_trt.base.errors import InputError, RunError

Weights = Literal["student", "teacher", "mixed"]

# The names of `formats.reading.detect.TITLES`, which a test compares; importing them would slow every call.
BoxesFormat = Literal["coco", "csv", "cvat", "kitti", "label-studio", "labelme", "parquet", "via", "voc", "yolo"]

ImagesOption = Annotated[
    Path | None,
    Option("--images", help="Pictures: a folder, a .tar or one file. Default: where the boxes say they are."),
]
BoxesOption = Annotated[
    Path,
    Option("--boxes", help="Boxes of any format that is read: a file, a folder, a data set's root."),
]
AnnotationsOption = Annotated[
    Path, Option("--annotations", help="Boxes with drawn masks (polygons or RLE), of any format that is read.")
]
BoxesFormatOption = Annotated[
    BoxesFormat | None, Option("--boxes-format", help="The boxes' format. Default: told by their content.")
]
SplitOption = Annotated[
    str | None, Option("--split", metavar="<name>", help="One split of a data set alone: train, val, test.")
]
RescaleOption = Annotated[
    bool, Option("--rescale", help="Pictures were resized since the boxes were made: scale the boxes to them.")
]
ModelOption = Annotated[str, Option("--model", help="A .onnx file of `mal-trt export`, an engine, or `bundled`.")]
BatchOption = Annotated[
    int | None,
    Option("--batch", min=1, help="Boxes the network sees at once. Default: 16, on a GPU what the engine takes."),
]
_DEVICE = "[auto|cpu|cuda|cuda:N]"
DeviceOption = Annotated[str, Option("--device", metavar=_DEVICE, help="auto: CUDA where it really works.")]
DevicesOption = Annotated[
    str,
    Option(
        "--device",
        metavar=_DEVICE,
        help="auto: CUDA where it really works; cuda:0,cuda:1: several GPUs, one process each.",
    ),
]
CropsOption = Annotated[
    Literal["auto", "cpu", "gpu"], Option("--crops", help="Where crops and masks are made; auto: beside the network.")
]
RefineOption = Annotated[
    Literal["color", "none"] | None,
    Option("--refine", help="color: sharpen masks by the colours in the crop. Default: the model's own choice."),
]
DecodeOption = Annotated[
    Literal["cpu", "gpu"],
    Option("--decode", help="gpu: JPEG by nvImageCodec, whose pixels differ by a few grey levels."),
]
FlipOption = Annotated[bool, Option("--flip", help="Average with the mirrored crop; half the speed.")]
WeightsOption = Annotated[
    Weights | None,
    Option("--weights", help="Which network of a model that carries both; default: the model's own choice."),
]
_THRESHOLD = "Mask where the probability is above this; three for small, medium, large boxes"
ThresholdOption = Annotated[
    str | None,
    Option("--threshold", metavar="<number[,number,number]>", help=f"{_THRESHOLD}. Default: the model's."),
]
LabelThresholdOption = Annotated[
    str | None,
    Option(
        "--threshold",
        metavar="<number[,number,number]|tight>",
        help=f"{_THRESHOLD}; tight: for each box the highest whose mask fills it. Default: the model's.",
    ),
]
ThreadsOption = Annotated[int | None, Option("--threads", min=1, help="CPU threads; default: every core.")]
_FORMATS = "coco|coco-polygons|yolo|labelme|voc|png-instance|png-semantic|cvat|label-studio|parquet|geojson"
FormatOption = Annotated[
    str, Option("--format", metavar=f"[{_FORMATS}]", help="How to write masks; several with commas between: a folder.")
]
SimplifyOption = Annotated[
    float | None,
    Option(help="Polygons with fewer points, so many pixels off at most; cvat and label-studio then hold polygons."),
]
QuietOption = Annotated[bool, Option("--quiet", "-q", help="No progress bar, no summary.")]


def threshold_of(text: str | None) -> float | tuple[float, ...] | Literal["tight"] | None:
    """`0.3`, `0.1,0.2,0.3` or `tight`."""
    return "tight" if text == "tight" else numbers(text)


def numbers(text: str | None) -> float | tuple[float, ...] | None:
    """`0.3` or `0.1,0.2,0.3`."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--threshold {text}: expected a number, or three with commas between") from None
    return values[0] if len(values) == 1 else values


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """A missing package of an optional part becomes one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "mal_trt":
            raise
        raise RunError(f'`mal-trt {extra}` needs {error.name}; run: pip install "mal-trt[{extra}]"') from None
