"""What crops of another side for each size of box give: models in turn label the same boxes with drawn masks.

    python benchmarks/size_speed.py --images DIR|TAR --annotations val.json --models large.onnx sized.onnx [--rounds 3]

The first model is what the others are compared with. Boxes a second are of the processor's time that the process took,
reading and writing included, which other work on the machine disturbs less than the clock; the median of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from common import save

from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.labelling.run import label
from mal_trt.measure.evaluate import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    rates: dict[str, list[float]] = {model: [] for model in arguments.models}
    quality: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(arguments.rounds):
            for model in arguments.models:
                out = Path(scratch) / f"labels-{turn}.json"
                began, clock = time.process_time(), time.perf_counter()
                options = {"device": "cpu", "threads": arguments.threads, "progress": False}
                summary = label(arguments.images, arguments.annotations, model, out, **options)
                seconds = time.process_time() - began
                rates[model].append(summary.labelled / seconds)
                print(f"{model}: {seconds:.1f} s of processor time, {time.perf_counter() - clock:.1f} s", flush=True)
                if model not in quality:
                    found = evaluate(None, arguments.annotations, labels=out)
                    quality[model] = {key: found[key] for key in found if key.startswith("miou")}
                out.unlink()
    rows = []
    for model in arguments.models:
        contract = read_contract(resolve_model(model))
        rate = median(rates[model])
        ratio = rate / median(rates[arguments.models[0]])
        rows.append(
            {
                "model": Path(model).name,
                "sides": list(contract.sizes or (contract.input_size,)),
                "boxes_per_cpu_s": round(rate, 2),
                "times_the_first": round(ratio, 3),
                **{key: round(value, 4) for key, value in quality[model].items() if value is not None},
            }
        )
        print(rows[-1])
    save(arguments.json, {"boxes": summary.labelled, "threads": arguments.threads, "rows": rows})


if __name__ == "__main__":
    main()
