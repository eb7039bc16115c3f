"""Commands that run an engine with NVIDIA's own trtexec and Polygraphy. What it says of itself is `manifest`."""

from __future__ import annotations

import shlex
from pathlib import Path

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.manifest import Manifest, Profile

# TensorRT-RTX has its own trtexec, and Polygraphy asks the environment which library to load.
TRTEXEC = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
RTX = "POLYGRAPHY_USE_TENSORRT_RTX=1"


def tool_lines(engine: Path, manifest: Manifest) -> dict[str, str]:
    """Name -> command: time the engine, check that it runs, list its layers, and build it again from its model.

    Timed with the best batch of its last profile, the one for large boxes.
    """
    number = len(manifest.profiles) - 1
    best = shapes(manifest.contract, manifest.profiles[number], 1)
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


def shapes(contract: Contract, profile: Profile, which: int) -> dict[str, tuple[int, ...]]:
    """Shape of each input. which: 0 the smallest batch of the profile, 1 the best, 2 the largest."""
    side = contract.input_size
    inputs: dict[str, tuple[int, ...]] = {"image": (profile.batch[which], 3, side, side)}
    return inputs if profile.grid is None else {**inputs, "head_grid": (1, 1, profile.grid, profile.grid)}


def _build(engine: Path, manifest: Manifest) -> list[str]:
    (profile,) = manifest.profiles
    words = [TRTEXEC[manifest.flavor], f"--onnx={engine.with_name(manifest.onnx)}"]
    if manifest.flavor == "tensorrt":  # TensorRT-RTX takes types from the model always
        words += ["--stronglyTyped", "--noTF32"]
    for which, option in enumerate(("minShapes", "optShapes", "maxShapes")):
        words.append(f"--{option}={_joined(shapes(manifest.contract, profile, which))}")
    return [*words, f"--saveEngine={engine}"]


def _joined(inputs: dict[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in inputs.items())
