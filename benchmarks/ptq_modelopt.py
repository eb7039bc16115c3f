"""INT8 by NVIDIA ModelOpt's ONNX PTQ, for `ptq_table.py`. Runs in an environment of its own:

    python -m venv modelopt-env
    modelopt-env/bin/pip install "nvidia-modelopt[onnx]==0.47.0"
    modelopt-env/bin/python benchmarks/ptq_modelopt.py --model fp32.onnx --crops crops.npz --out DIR

Writes DIR/modelopt-<name>.onnx: `default` (entropy, its own choice of layers, FP16 elsewhere), `default-max` and
`same-<method>`, only the layers that mal-trt quantises. crops.npz: of `calibration_crops.py`.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from modelopt.onnx.quantization import quantize
from ptq_files import give_metadata, layers, plain, timed, write

SETTINGS = ("default", "default-max", "same-entropy", "same-max")


def quantise(setting: str, source: Path, image: np.ndarray, batch: int, out: Path) -> None:
    options: dict[str, Any] = {}
    if setting != "default":
        options["calibration_method"] = setting.rpartition("-")[2]
    if setting.startswith("same"):
        chosen = layers(source)
        options["op_types_to_quantize"] = sorted(set(chosen.values()))
        options["nodes_to_quantize"] = [re.escape(name) for name in chosen]
    side = image.shape[-1]
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_data={"image": image},
        calibration_shapes=f"image:{batch}x3x{side}x{side}",
        calibration_eps=["cpu"],
        output_path=str(out),
        log_level="WARNING",
        **options,
    )
    give_metadata(out, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--count", type=int, help="of the crops; default: all")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    image = np.load(arguments.crops)["image"][: arguments.count]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        source = plain(arguments.model, Path(folder) / "plain.onnx")
        for setting in arguments.settings:
            out = arguments.out / f"modelopt-{setting}.onnx"
            work = partial(quantise, setting, source, image, arguments.batch, out)
            runs.append(timed(f"modelopt-{setting}", work))
    facts = {"tool": f"nvidia-modelopt {version('nvidia-modelopt')}", "crops": len(image), "runs": runs}
    write(arguments.out / "modelopt.json", facts)


if __name__ == "__main__":
    main()
