"""MAL's ViT-Base in PyTorch on the GPU, forward and a training step: what engines are held against. Needs torch only.

    python benchmarks/gpu/yardstick.py [--size 512] [--batch 1,8,32,64] [--compile]

Random weights, crops on the GPU already, CUDA events, the best of three rounds; boxes/s by precision and batch.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from mal_trt.training.network import NetworkConfig, build_network

WORK = Path(os.environ.get("WORK", "/tmp/gpu"))


def best(run: Callable[[], object], boxes: int, seconds: float = 0.4) -> float:
    """Boxes/s of the best of three rounds."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    found = 0.0
    for _ in range(3):
        began, turns = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            run()
            turns += 1
            torch.cuda.synchronize()
        found = max(found, turns * boxes / (time.perf_counter() - began))
    return round(found, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", default="1,8,32,64")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    name = "torch_compiled" if arguments.compile else "torch_eager"
    rows: list[dict[str, object]] = []
    networks = {
        "vit-mae-base/16": NetworkConfig("vit-mae-base/16", "patch", arguments.size, adjust_scale=False),
        "mal-lite0": NetworkConfig("mal-lite0", crop_size=192, mask_head_hidden_channel=64),
    }
    for arch, config in networks.items():
        for dtype in (torch.float16, torch.bfloat16):
            network = build_network(config).eval().requires_grad_(False).cuda().to(dtype)
            if arch != "vit-mae-base/16":
                network = network.to(memory_format=torch.channels_last)
            forward = network.forward_grid
            if arguments.compile:
                forward = torch.compile(forward)
            for batch in map(int, arguments.batch.split(",")):
                image = torch.rand(batch, 3, config.crop_size, config.crop_size, device="cuda", dtype=dtype)
                grid = config.crop_size // (16 if arch == "vit-mae-base/16" else 8)
                try:
                    with torch.inference_mode():
                        speed = best(partial(forward, image, grid), batch)
                    row = {"arch": arch, "dtype": str(dtype), "batch": batch, "boxes_per_s": speed}
                except Exception as error:  # a row that fails must not cost the others
                    row = {"arch": arch, "dtype": str(dtype), "batch": batch, "error": str(error)[:300]}
                rows.append(row)
                print(row, flush=True)
                (WORK / f"{name}.json").write_text(json.dumps({"torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
