"""Boxes in, masks out: MAL mask auto-labelling on ONNX Runtime and TensorRT.

from mal_trt import Labeler
masks = Labeler()("photo.jpg", [[30, 40, 200, 260]]).masks
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mal_trt.labelling.labeler import Labeler, Masks
    from mal_trt.labelling.run import Summary, label

__version__ = "0.2.0"

# Where each public name lives; imported on first use, so that `import mal_trt` costs nothing.
_HOMES = {
    "Labeler": "mal_trt.labelling.labeler",
    "Masks": "mal_trt.labelling.labeler",
    "label": "mal_trt.labelling.run",
    "Summary": "mal_trt.labelling.run",
}

__all__ = ["Labeler", "Masks", "Summary", "__version__", "label"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
