"""Turns bounding boxes into instance masks: Mask Auto-Labeler (MAL) on ONNX Runtime and TensorRT.

    from mal_trt import Labeler
    masks = Labeler()("photo.jpg", [[30, 40, 200, 260]]).masks

The public API is what this module names (`__all__`), with the documented arguments and results of each:

- `Labeler`, `Masks`: masks for the boxes of one picture. `label`, `Summary`: for a whole document, like the command.
- `Boxes`: boxes of any format that is read, where a path alone does not say enough: format, split, rescaling.
- `convert`, `Converted`: labels in other formats. `write_report`, `Report`: labels to look at in a browser.
- `evaluate`, `compare`, `benchmark`: how good and how fast models are, each as a dict.
- `export_onnx`, `calibrate`, `build_engine` (with `CalibrationSettings`, `EngineOptions`): from a checkpoint to ONNX,
  to INT8, to an engine. The export is not called `export`, which is the subpackage it lives in.
- `InputError`, `RunError`, and `MalTrtError`, which is both: what all of these raise on purpose.

Everything else, every submodule included, may move or change in any release; so may this until version 1.0, but never
without a line in the changelog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.base.version import __version__

if TYPE_CHECKING:
    from mal_trt.calibration.calibrate import calibrate
    from mal_trt.calibration.settings import CalibrationSettings
    from mal_trt.engines.engine import build_engine
    from mal_trt.engines.job import EngineOptions
    from mal_trt.export.export import export_onnx
    from mal_trt.formats.boxes import Boxes
    from mal_trt.labelling.convert import Converted, convert
    from mal_trt.labelling.labeler import Labeler, Masks
    from mal_trt.labelling.run import label
    from mal_trt.labelling.summary import Summary
    from mal_trt.measure.benchmark import benchmark
    from mal_trt.measure.compare import compare
    from mal_trt.measure.evaluate import evaluate
    from mal_trt.report.labels import write_report
    from mal_trt.report.write import Report

# Where each public name lives, and the extra it needs; imported on first use, so that `import mal_trt` costs nothing.
_HOMES = {
    "Boxes": ("mal_trt.formats.boxes", "cpu"),
    "CalibrationSettings": ("mal_trt.calibration.settings", "calibrate"),
    "Converted": ("mal_trt.labelling.convert", "cpu"),
    "EngineOptions": ("mal_trt.engines.job", "gpu"),
    "Labeler": ("mal_trt.labelling.labeler", "cpu"),
    "Masks": ("mal_trt.labelling.labeler", "cpu"),
    "Report": ("mal_trt.report.write", "cpu"),
    "Summary": ("mal_trt.labelling.summary", "cpu"),
    "benchmark": ("mal_trt.measure.benchmark", "cpu"),
    "build_engine": ("mal_trt.engines.engine", "gpu"),
    "calibrate": ("mal_trt.calibration.calibrate", "calibrate"),
    "compare": ("mal_trt.measure.compare", "cpu"),
    "convert": ("mal_trt.labelling.convert", "cpu"),
    "evaluate": ("mal_trt.measure.evaluate", "cpu"),
    "export_onnx": ("mal_trt.export.export", "export"),
    "label": ("mal_trt.labelling.run", "cpu"),
    "write_report": ("mal_trt.report.labels", "cpu"),
}

__all__ = [
    "Boxes",
    "CalibrationSettings",
    "Converted",
    "EngineOptions",
    "InputError",
    "Labeler",
    "MalTrtError",
    "Masks",
    "Report",
    "RunError",
    "Summary",
    "__version__",
    "benchmark",
    "build_engine",
    "calibrate",
    "compare",
    "convert",
    "evaluate",
    "export_onnx",
    "label",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home, extra = _HOMES[name]
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == __name__:
            raise
        raise ImportError(f'mal_trt.{name} needs {error.name}; run: pip install "mal-trt[{extra}]"') from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
