"""Commands that run an engine with NVIDIA's own trtexec and Polygraphy. What it says of itself is `manifest`."""

from __future__ import annotations

import shlex
from pathlib import Path

from mal_trt.artifacts.manifest import Manifest, shapes

# TensorRT-RTX has its own trtexec, and Polygraphy asks the environment which library to load.
TRTEXEC = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
RTX = "POLYGRAPHY_USE_TENSORRT_RTX=1"


def tool_lines(engine: Path, manifest: Manifest) -> dict[str, str]:
    """Name -> command: time the engine, check that it runs, list its layers, and build it again from its model.

    Timed with the best batch of its last profile, the one for large boxes.
    """
    number = len(manifest.profiles) - 1
    best = _of(shapes(manifest.contract, manifest.profiles[number]), 1)
    timed = [TRTEXEC[manifest.flavor], f"--loadEngine={engine}", f"--shapes={_joined(best)}"]
    run = ["polygraphy", "run", str(engine), "--trt", "--model-type", "engine", "--input-shapes"]
    run += [f"{name}:[{','.join(map(str, dims))}]" for name, dims in best.items()]
    if number:
        timed.append(f"--useProfile={number}")
        run += ["--optimization-profile", str(number)]
    layers = ["polygraphy", "inspect", "model", str(engine), "--model-type", "engine", "--show", "layers"]
    ahead = f"{RTX} " if manifest.flavor == "tensorrt-rtx" else ""
    lines = {
        "time it": shlex.join(timed),
        "run it": ahead + shlex.join(run),
        "list its layers": ahead + shlex.join(layers),
    }
    if len(manifest.profiles) == 1:  # trtexec builds one profile
        lines["build it without mal-trt"] = shlex.join(_build(engine, manifest))
    return lines


def _build(engine: Path, manifest: Manifest) -> list[str]:
    (profile,) = manifest.profiles
    words = [TRTEXEC[manifest.flavor], f"--onnx={engine.with_name(manifest.onnx)}"]
    if manifest.flavor == "tensorrt":  # TensorRT-RTX takes types from the model always
        words += ["--stronglyTyped", "--noTF32"]
    inputs = shapes(manifest.contract, profile)
    for which, option in enumerate(("minShapes", "optShapes", "maxShapes")):
        words.append(f"--{option}={_joined(_of(inputs, which))}")
    return [*words, f"--saveEngine={engine}"]


def _of(inputs: dict[str, tuple[tuple[int, ...], ...]], which: int) -> dict[str, tuple[int, ...]]:
    """Of each input the smallest (0), best (1) or largest (2) shape."""
    return {name: dims[which] for name, dims in inputs.items()}


def _joined(inputs: dict[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in inputs.items())
