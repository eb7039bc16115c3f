"""Options and small helpers that several verbs share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli.output import messages

if TYPE_CHECKING:
    from mal_trt.formats.boxes import Boxes
    from mal_trt.training.spec_use import SpecUse

SIZES_EXAMPLE = "small=128,medium=192,large=320"
Weights = Literal["student", "teacher", "mixed"]

# The names of `formats.reading.detect.TITLES`, which a test compares; importing them would slow every call.
BoxesFormat = Literal[
    "coco",
    "csv",
    "cvat",
    "kitti",
    "label-studio",
    "labelme",
    "parquet",
    "png-instance",
    "via",
    "voc",
    "webdataset",
    "yolo",
]

# Text, since a path would make `s3:/` of `s3://`.
ImagesOption = Annotated[
    str | None,
    Option(
        "--images",
        metavar="<path|url>",
        help="The pictures: a folder, .tar or .parquet files, one file, or a URL of these. Default: where the boxes "
        "say they are.",
    ),
]
BoxesOption = Annotated[
    str | None,
    Option(
        "--boxes",
        metavar="<path|url>",
        help="The boxes: a file, a folder or the root of a data set, in any format that is read; or a URL of these.",
    ),
]
AnnotationsOption = Annotated[
    str | None,
    Option(
        "--annotations",
        metavar="<path|url>",
        help="Boxes with drawn masks (polygons or RLE), in any format that is read.",
    ),
]
BoxesFormatOption = Annotated[
    BoxesFormat | None, Option("--boxes-format", help="The format of the boxes. Default: found out from their content.")
]
SplitOption = Annotated[
    str | None, Option("--split", metavar="<name>", help="Take only one split of the data set, such as train or val.")
]
RescaleOption = Annotated[
    bool, Option("--rescale", help="Scale the boxes, because the pictures were resized after the boxes were made.")
]
MODELS = (
    "An .onnx file from `mal-trt export`, an engine, a checkpoint, `bundled` or `bundled-edge`, half its size. "
    "Default: bundled"
)
ModelOption = Annotated[
    str | None, Option("--model", metavar="<model>", help=f"{MODELS}, or the one that --spec names.")
]
SpecOption = Annotated[
    Path | None,
    Option("--spec", "-e", metavar="<file>", help="An experiment spec (YAML), such as NVIDIA TAO's for MAL."),
]
OverridesArgument = Annotated[
    list[str] | None, Argument(metavar="KEY=VALUE", help="Fields of the spec that are to be different.")
]
ManyBoxesOption = Annotated[
    list[str] | None,
    Option(
        "--boxes",
        metavar="<path|url>",
        help="The boxes: a file, a folder or the root of a data set, in any format that is read; or a URL of these. "
        "May be repeated.",
    ),
]
ManyImagesOption = Annotated[
    list[str] | None,
    Option(
        "--images",
        metavar="<path|url>",
        help="The pictures, once for each --boxes and in the same order: a folder, .tar or .parquet files, one file, "
        "or a URL of these. Default: where the boxes say they are.",
    ),
]
CheckedMasksOption = Annotated[
    str | None,
    Option("--annotations", metavar="<path|url>", help="Boxes with drawn masks, to check the result on."),
]
CheckedImagesOption = Annotated[
    str | None,
    Option(
        "--annotation-images",
        metavar="<path|url>",
        help="The pictures of --annotations. Default: the first --images.",
    ),
]
BatchOption = Annotated[
    int | None,
    Option(
        "--batch",
        min=1,
        help="How many boxes the network sees at once. Default: 16, or on a GPU as many as the engine takes.",
    ),
]
_DEVICE = "[auto|cpu|cuda|cuda:N]"
DeviceOption = Annotated[
    str, Option("--device", metavar=_DEVICE, help="Where the network runs. auto takes CUDA where it really works.")
]
DevicesOption = Annotated[
    str,
    Option(
        "--device",
        metavar=_DEVICE,
        help="Where the network runs. auto takes CUDA where it really works; cuda:0,cuda:1 starts a process for each "
        "GPU.",
    ),
]
_BACKEND = (
    "auto: TensorRT for an engine, ONNX Runtime for an .onnx file; but OpenVINO for an FP32 file on a processor with "
    "bfloat16, if it is installed."
)
BackendOption = Annotated[
    Literal["auto", "onnxruntime", "openvino", "tensorrt"],
    Option("--backend", help=f"What runs the network. {_BACKEND}"),
]
BackendsOption = Annotated[
    str,
    Option(
        "--backend",
        metavar="[auto|onnxruntime|openvino|tensorrt]",
        help=f"What runs the networks: one for all models, or one for each with commas between. {_BACKEND}",
    ),
]
CropsOption = Annotated[
    Literal["auto", "cpu", "gpu"],
    Option("--crops", help="Where crops are cut and masks are made. auto: where the network runs."),
]
RefineOption = Annotated[
    Literal["color", "none"] | None,
    Option("--refine", help="color sharpens masks by the colours in the crop. Default: what the model asks for."),
]
DecodeOption = Annotated[
    Literal["cpu", "gpu", "scaled"],
    Option(
        "--decode",
        help="How pictures are decoded. scaled decodes JPEG at a half, a quarter or an eighth of its size where every "
        "box stays larger than what the network sees: faster for large photos, and masks differ a little. gpu decodes "
        "JPEG with nvImageCodec, whose pixels differ by a few grey levels.",
    ),
]
FlipOption = Annotated[bool, Option("--flip", help="Average with the mirrored crop: a little better, half as fast.")]
SlackOption = Annotated[
    float,
    Option(
        "--slack",
        help="How far masks may leave their boxes on each side, as a share of the box; for boxes drawn too small.",
    ),
]
SecondPassOption = Annotated[
    bool,
    Option(
        "--second-pass",
        help="Draw each mask once more, as that of its own box: for boxes drawn too large. Half as fast.",
    ),
]
WeightsOption = Annotated[
    Weights | None,
    Option(
        "--weights",
        help="Which of the two networks to use, if the model carries both. Default: what the model asks for.",
    ),
]
THRESHOLD = "A pixel belongs to the mask above this probability; give three for small, medium and large boxes"
ThresholdOption = Annotated[
    str | None,
    Option("--threshold", metavar="<number[,number,number]>", help=f"{THRESHOLD}. Default: the model's."),
]
LabelThresholdOption = Annotated[
    str | None,
    Option(
        "--threshold",
        metavar="<number[,number,number]|tight>",
        help=f"{THRESHOLD}. tight takes, for each box, the highest one whose mask still reaches the sides of the box. "
        "Default: the model's.",
    ),
]
ThreadsOption = Annotated[
    int | None, Option("--threads", min=1, help="Threads of the processor. Default: one for each core.")
]
_FORMATS = "coco|coco-polygons|yolo|labelme|voc|png-instance|png-semantic|cvat|label-studio|parquet|geojson"
FormatOption = Annotated[
    str,
    Option(
        "--format",
        metavar=f"[{_FORMATS}]",
        help="How masks are written. Several formats with commas between them go into a folder.",
    ),
]
SimplifyOption = Annotated[
    float | None,
    Option(
        help="Leave out points of polygons that are at most this many pixels off the line. cvat and label-studio then "
        "hold polygons instead of masks."
    ),
]
ReportOption = Annotated[
    Path | None,
    Option("--report", help="A folder for a report to look at in a browser. An earlier report there is replaced."),
]
JsonOption = Annotated[  # taken by `cli.output` for all verbs, so that an option that is wrong is answered too
    bool,
    Option(
        "--json",
        help="Print one JSON document on standard output: the result, or the error. All else goes to standard error.",
    ),
]
JsonOutOption = Annotated[Path | None, Option("--json-out", help="Write all figures to this file too, as JSON.")]
DryRunOption = Annotated[
    bool, Option("--dry-run", help="Say what would be done and how long it would take, measured, and write nothing.")
]
QuietOption = Annotated[bool, Option("--quiet", "-q", help="Show nothing but errors: no progress, no result.")]


def command_line() -> str:
    """This call as it was typed."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


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


def sides(text: str | None) -> tuple[int, int, int] | None:
    """`small=128,medium=192,large=320`: sides of the crops of small, medium and large boxes, pixels."""
    if text is None:
        return None
    names = ("small", "medium", "large")
    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, side = (word.strip() for word in part.partition("="))
        if name not in names or not side.isdecimal() or name in given:
            raise InputError(f"--sizes {text}: {part!r} is not understood; expected {SIZES_EXAMPLE}")
        given[name] = side
    if missing := [name for name in names if name not in given]:
        raise InputError(f"--sizes {text}: nothing for {' and '.join(missing)} boxes; expected {SIZES_EXAMPLE}")
    small, medium, large = (int(given[name]) for name in names)
    return small, medium, large


def tell_of_checkpoints(quiet: bool) -> None:
    """Say on standard error, unless `quiet`, where the checkpoints that stand for models are exported to."""
    from mal_trt.artifacts.checkpoints import say_with

    say_with(messages(quiet))


def paired(
    images: Sequence[str | Path | None] | None, boxes: Sequence[str | Path] | None, *how: Any
) -> tuple[tuple[str | Path | None, Boxes], ...]:
    """Each --boxes with its --images, or None where the boxes say where their pictures are. how: see `Boxes`."""
    boxes = boxes or ()
    if images and len(images) != len(boxes):
        raise InputError(f"--images given {len(images)} times, --boxes {len(boxes)}: each needs the other")
    from mal_trt.formats.boxes import Boxes

    return tuple(zip(images or [None] * len(boxes), [Boxes(path, *how) for path in boxes], strict=True))


def model_of_spec(use: SpecUse, model: str | None, weights: Weights | None) -> Path:
    """The model to run: `--model` if given, or else the spec's. A checkpoint is exported as the spec says, with the
    weights of `--weights` if that is given."""
    from mal_trt.artifacts.checkpoints import SUFFIXES, model_of
    from mal_trt.artifacts.models import resolve_model
    from mal_trt.artifacts.onnxfile import read_contract

    named = model or use.model()
    if named.lower().endswith(SUFFIXES) and os.path.isfile(named):
        path = model_of(Path(named), replace(use.choice, weights=weights or use.choice.weights))
    else:
        path = resolve_model(named)
    if path.suffix.lower() == ".onnx":
        use.check_arch(read_contract(path).arch)
    return path


class MissingPackage(RunError):
    """A package of an optional part is not installed. The message begins with what comes after the verb."""


@contextmanager
def needs(*extras: str) -> Iterator[None]:
    """A missing package becomes one line that names it, the verb that was called, and the extras that install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "mal_trt":
            raise
        raise MissingPackage(f'needs {error.name}; run: pip install "mal-trt[{",".join(extras)}]"') from None
