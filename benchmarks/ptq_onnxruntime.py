"""INT8 by ONNX Runtime's `quantize_static`, for `ptq_table.py`. Runs in an environment of its own:

    python -m venv ort-env
    ort-env/bin/pip install onnxruntime==1.31.1 onnx==1.23.2
    ort-env/bin/python benchmarks/ptq_onnxruntime.py --model fp32.onnx --crops crops.npz --out DIR

Writes DIR/ort-<name>.onnx: `default`, as the documentation has it (pre-processing, QDQ, MinMax, every operator that can
be quantised), and `same-<method>`: only the layers that mal-trt quantises, symmetric, a scale for each channel of the
weights, nothing at the outputs. crops.npz: of `calibration_crops.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from ptq_files import give_metadata, layers, plain, timed, write

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
SETTINGS = ("default", *(f"same-{method}" for method in METHODS))


class Crops(CalibrationDataReader):  # type: ignore[misc]
    """The crops in batches."""

    def __init__(self, image: np.ndarray, batch: int) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.split(image, range(batch, len(image), batch)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._batches, None)
        return None if image is None else {"image": image}


def quantise(setting: str, model: Path, source: Path, crops: Crops, out: Path) -> None:
    if setting == "default":
        quantize_static(str(model), str(out), crops)
    else:
        chosen = layers(source)
        operators = sorted(set(chosen.values()))
        quantize_static(
            str(model),
            str(out),
            crops,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[setting.removeprefix("same-")],
            op_types_to_quantize=operators,
            nodes_to_quantize=list(chosen),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": operators,
                "QuantizeBias": False,
            },
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
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        for setting in arguments.settings:
            out = arguments.out / f"ort-{setting}.onnx"
            crops = Crops(image, arguments.batch)
            runs.append(timed(f"ort-{setting}", partial(quantise, setting, prepared, source, crops, out)))
    facts = {"tool": f"onnxruntime {onnxruntime.__version__}", "crops": len(image), "runs": runs}
    write(arguments.out / "ort.json", facts)


if __name__ == "__main__":
    main()
