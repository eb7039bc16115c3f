"""`mal-trt package deepstream`: a model, and the config of nvinfer to run it on detected objects.

The margin around a box, which nvinfer does not know, and the masks are made by the probes of `deepstream_probes`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from mal_trt.artifacts.contract import Contract, check_for_gpu
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_new
from mal_trt.geometry.boxes import SizeClass
from mal_trt.packages.float_model import write_float_model
from mal_trt.packages.folder import write_folder
from mal_trt.packages.source import Source, check_card, engine_files, open_source

CONFIG, CONTRACT = "config_infer_mal.txt", "contract.json"
SERVER = "DeepStream"
LARGEST = 16  # objects in a batch of an .onnx file, which takes any number
IN_FLIGHT = 512  # objects whose logits may wait at once


@dataclass(frozen=True)
class DeepStreamOptions:
    """What may be asked of a package.

    - `batch`: most objects that the network sees at once. None: what the engine takes; 16 for an .onnx file.
    - `head`: the boxes, "small", "medium" or "large", whose grid is baked into a model that takes it at run time.
    - `gie_id`: unique id of this nvinfer. `on_gie_id`: that of the detector whose objects get masks.
    - `compute_capability`: of the GPU that the package is for, such as "8.6". None: this machine's, if it has one.
    """

    batch: int | None = None
    head: str = "large"
    gie_id: int = 2
    on_gie_id: int = 1
    compute_capability: str | None = None


def package_deepstream(model: str | Path, out: Path, options: DeepStreamOptions | None = None) -> list[str]:
    """Write a folder for DeepStream; returns the names of its files.

    model: an .onnx file, made to take float32 pixels where it takes others, or a TensorRT engine that does. InputError
    for what nvinfer cannot load, and if `out` exists; nothing is written then.
    """
    options = options or DeepStreamOptions()
    check_new(out)
    if options.gie_id == options.on_gie_id:
        raise InputError(f"--gie-id {options.gie_id}: is the detector's too (--on-gie-id); give two different ids")
    source = open_source(model, SERVER)
    check_for_gpu(source.contract, source.path, SERVER)
    if source.manifest is not None and "VERSION_COMPATIBLE" in source.manifest.flags:
        raise InputError(f"{source.path}: built with --version-compatible, which nvinfer cannot load; build it without")
    check_card([source], options.compute_capability)
    if options.batch is not None and source.largest is not None and options.batch > source.largest:
        raise InputError(f"batch {options.batch}: {source.path} takes up to {source.largest}; build it with more")
    with tempfile.TemporaryDirectory() as scratch:
        contract, files = _model_files(source, SizeClass[options.head.upper()], Path(scratch))
        template = resources.files("mal_trt.packages") / "templates" / "deepstream_masks_py.txt"
        files[CONFIG] = config(source, contract, options)
        files[CONTRACT] = json.dumps({"gie_id": options.gie_id, "mal_trt": asdict(contract)}, indent=1) + "\n"
        files["mal_masks.py"] = template.read_text(encoding="utf-8")
        write_folder(out, files)
    return list(files)


def config(source: Source, contract: Contract, options: DeepStreamOptions) -> str:
    """The config file of nvinfer. Paths in it are relative to it."""
    side, batch = contract.input_size, options.batch or source.largest or LARGEST
    keys: dict[str, object] = {
        "gpu-id": 0,
        "gie-unique-id": options.gie_id,
        "process-mode": 2,  # on objects
        "operate-on-gie-id": options.on_gie_id,
        "network-type": 100,  # raw tensors, no parser of nvinfer's
        "output-tensor-meta": 1,
        "output-blob-names": "logits",
        "batch-size": batch,
        # Logits stay with nvinfer until their frames are let go; without this it has room for a few batches, and a
        # frame with more objects would never come out.
        "tensor-meta-pool-size": max(IN_FLIGHT // batch, 8),
        "input-object-min-width": 1,
        "input-object-min-height": 1,
        "infer-dims": f"3;{side};{side}",
        "model-color-format": 0,  # RGB
        "net-scale-factor": 1,  # the graph normalises
        "maintain-aspect-ratio": 0,
        "scaling-filter": 2,  # cubic on a GPU
        "scaling-compute-hw": 1,  # the GPU: a Jetson's VIC scales by 16 at most
        "network-mode": 0,  # FP32: types are the graph's, nvinfer is to choose none
    }
    keys |= {"model-engine-file": "model.engine"} if source.manifest else {"onnx-file": "model.onnx"}
    return "[property]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())


def _model_files(source: Source, size: SizeClass, scratch: Path) -> tuple[Contract, dict[str, str | Path]]:
    contract = source.contract
    if source.manifest is None:
        onnx = scratch / "model.onnx"
        contract = write_float_model(source, size, onnx)
        return contract, {path.name: path for path in (onnx, parity_path(onnx)) if path.is_file()}
    if contract.input_dtype != "float32" or contract.head == "dynamic":
        raise InputError(
            f"{source.path}: nvinfer feeds float32 pixels and nothing else, this engine takes {contract.input_dtype}"
            f"{' and a grid' if contract.head == 'dynamic' else ''}; package its .onnx file, then build the engine of "
            "the package's model.onnx"
        )
    return contract, {**engine_files(source, "model.engine")}
