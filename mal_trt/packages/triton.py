"""`mal-trt package triton`: a model repository of two models. What its Python model does is `triton_model`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from mal_trt.artifacts.contract import Contract
from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_new
from mal_trt.geometry.boxes import SizeClass
from mal_trt.packages.folder import write_folder
from mal_trt.packages.source import Source, check_card, open_source

CROPS, LABELER = "mal_crops", "mal_labeler"
CONTRACT = "contract.json"
SERVER = "Triton"
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
LARGEST = 32  # boxes in a batch of an .onnx file, which takes any number


@dataclass(frozen=True)
class TritonOptions:
    """What may be asked of a repository.

    - `batch`: most boxes that the network sees at once. None: what the engine takes; 32 for an .onnx file.
    - `instances`: copies of the network on each GPU. `labelers`: processes that cut crops and make masks.
    - `delay`: microseconds that a batch waits for more boxes.
    - `compute_capability`: of the GPU that the server has, such as "8.6". None: this machine's, if it has one.
    """

    batch: int | None = None
    instances: int = 1
    labelers: int = 2
    delay: int = 500
    compute_capability: str | None = None


def package_triton(models: Sequence[str | Path], out: Path, options: TritonOptions | None = None) -> list[str]:
    """Write a model repository; returns the names of its files.

    models: one .onnx file, or engines of one model, each for another GPU. InputError for what Triton cannot load,
    for engines that are not of one model, and if `out` exists; nothing is written then.
    """
    options = options or TritonOptions()
    check_new(out)
    sources = [open_source(model, SERVER) for model in models]
    _check_together(sources)
    check_card(sources, options.compute_capability)
    batch = _batch(sources, options.batch)
    template = resources.files("mal_trt.packages") / "templates"
    files: dict[str, str | Path] = {
        f"{CROPS}/config.pbtxt": crops_config(sources, batch, options),
        f"{LABELER}/config.pbtxt": labeler_config(batch, options),
        f"{LABELER}/1/model.py": (template / "triton_model_py.txt").read_text(encoding="utf-8"),
        f"{LABELER}/1/{CONTRACT}": json.dumps(asdict(sources[0].contract), indent=1) + "\n",
        "client.py": (template / "triton_client_py.txt").read_text(encoding="utf-8"),
    }
    names = _plans(sources) if sources[0].manifest else {"model.onnx": sources[0]}
    files |= {f"{CROPS}/1/{name}": source.path for name, source in names.items()}
    write_folder(out, files)
    return list(files)


def crops_config(sources: Sequence[Source], batch: int, options: TritonOptions) -> str:
    """`config.pbtxt` of the network: crops to logits."""
    contract, dynamic = sources[0].contract, sources[0].contract.head == "dynamic"
    engine = sources[0].manifest is not None
    side = contract.input_size
    lines = [f'name: "{CROPS}"']
    lines += ['platform: "tensorrt_plan"'] if engine else ['backend: "onnxruntime"']
    # `head_grid` belongs to a whole batch, which Triton can neither batch nor split.
    lines.append(f"max_batch_size: {0 if dynamic else batch}")
    ahead = (-1,) if dynamic else ()
    lines += _tensor("input", "image", TYPES[contract.input_dtype], (*ahead, 3, side, side))
    if dynamic:
        lines += _tensor("input", "head_grid", "TYPE_UINT8", (1, 1, -1, -1))
    for name, dims in (sources[0].outputs or {}).items():
        lines += _tensor("output", name, "TYPE_FP32", (*ahead, *dims))
    group = [f"count: {options.instances}", f"kind: {'KIND_GPU' if engine else 'KIND_AUTO'}"]
    if engine and dynamic:
        group.append("profile: [" + ", ".join(f'"{index}"' for index in range(len(SizeClass))) + "]")
    lines += _block("instance_group", group)
    if not dynamic:
        lines += _block("dynamic_batching", [f"max_queue_delay_microseconds: {options.delay}"])
    if engine:
        for name, source in _plans(sources).items():
            for entry in source.manifest.compute_capabilities if source.manifest else ():
                if not entry.endswith("+"):
                    lines += _block("cc_model_filenames", [f'key: "{entry}"', f'value: "{name}"'])
        lines.append(f'default_model_filename: "{_fallback(sources)}"')
    for title, number, shapes in _warmups(contract, batch):
        lines += _warmup(title, number, shapes, TYPES[contract.input_dtype])
    return "\n".join(lines) + "\n"


def labeler_config(batch: int, options: TritonOptions) -> str:
    """`config.pbtxt` of the Python model: picture and boxes to masks."""
    lines = [f'name: "{LABELER}"', 'backend: "python"', "max_batch_size: 0"]
    lines += _tensor("input", "image", "TYPE_UINT8", (-1,))
    lines += _tensor("input", "boxes", "TYPE_FP64", (-1, 4))
    lines += _tensor("output", "rle", "TYPE_STRING", (-1,))
    lines += _tensor("output", "quality", "TYPE_FP32", (-1,))
    lines += _block("instance_group", [f"count: {options.labelers}", "kind: KIND_CPU"])
    for name, value in (("crops_model", CROPS), ("batch", str(batch))):
        lines += _block("parameters", [f'key: "{name}"', f'value: {{ string_value: "{value}" }}'])
    return "\n".join(lines) + "\n"


def _check_together(sources: Sequence[Source]) -> None:
    first = sources[0]
    if len(sources) == 1:
        return
    seen: dict[str, Path] = {}
    for source in sources:
        if source.manifest is None or first.manifest is None:
            raise InputError(f"{source.path}: several models make one package only if all of them are engines")
        if source.manifest.onnx_sha256 != first.manifest.onnx_sha256:
            raise InputError(f"{source.path}: built from another model than {first.path}; package them apart")
        for entry in source.manifest.compute_capabilities:
            if entry in seen:
                raise InputError(f"{source.path}: for compute capability {entry} there is already {seen[entry]}")
            seen[entry] = source.path


def _batch(sources: Sequence[Source], wanted: int | None) -> int:
    most = min((source.largest for source in sources if source.largest), default=None)
    if wanted is not None and most is not None and wanted > most:
        raise InputError(f"batch {wanted}: {sources[0].path} takes up to {most}; build it with a larger --batch")
    return wanted or most or LARGEST


def _plans(sources: Sequence[Source]) -> dict[str, Source]:
    """Names of engines in the repository, such as `model_8.6.plan`."""
    entries = [(source.manifest.compute_capabilities[0] if source.manifest else "", source) for source in sources]
    return {f"model_{capability.replace('+', '_up')}.plan": source for capability, source in entries}


def _fallback(sources: Sequence[Source]) -> str:
    """The plan for a GPU that none is named for: one that runs on several, if there is such."""
    plans = _plans(sources)
    return next((name for name in plans if name.endswith("_up.plan")), next(iter(plans)))


def _warmups(contract: Contract, batch: int) -> Iterator[tuple[str, int, dict[str, tuple[int, ...]]]]:
    """Name, batch size and shapes of what the server runs before it is ready."""
    side = contract.input_size
    if contract.head == "dynamic":
        for size in SizeClass:
            grid = contract.grid(size)
            yield size.name.lower(), 1, {"image": (batch, 3, side, side), "head_grid": (1, 1, grid, grid)}
        return
    for number in dict.fromkeys((1, batch)):
        yield f"batch {number}", number, {"image": (3, side, side)}


def _warmup(title: str, number: int, shapes: dict[str, tuple[int, ...]], kind: str) -> list[str]:
    lines = [f'name: "{title}"', f"batch_size: {number}"]
    for name, dims in shapes.items():
        value = [f"data_type: {kind if name == 'image' else 'TYPE_UINT8'}", f"dims: {list(dims)}", "zero_data: true"]
        lines += _block("inputs", [f'key: "{name}"', *_block("value", value)])
    return _block("model_warmup", lines)


def _tensor(field: str, name: str, kind: str, dims: Sequence[int]) -> list[str]:
    return _block(field, [f'name: "{name}"', f"data_type: {kind}", f"dims: {list(dims)}"])


def _block(field: str, lines: Sequence[str]) -> list[str]:
    return [f"{field} {{", *(f"  {line}" for line in lines), "}"]
