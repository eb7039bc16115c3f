"""Which versions of the packages that matter are installed. The machine itself is `measure.hardware`."""

from __future__ import annotations

from importlib import metadata

LIBRARIES = (
    *("numpy", "pillow", "pycocotools", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt_rtx", "cuda-bindings", "pycuda"),
)


def library_versions() -> dict[str, str]:
    """Name and version of those of LIBRARIES that are installed."""
    return {name: version for name in LIBRARIES if (version := _version(name))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
