"""Boxes per second of a checkpoint's network in PyTorch on the GPU, eager and compiled: the yardstick for engines.

    python benchmarks/torch_speed.py --checkpoint base.pth [--batch 8,32] --json torch_speed.json

FP16 weights and arithmetic, crops already on the GPU, timed by CUDA events after a warm-up; the best round counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from common import save
from torch import Tensor

from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.checkpoint import load_into, read_checkpoint
from mal_trt.training.network import MALNetwork, build_network


def open_network(checkpoint: Path) -> tuple[MALNetwork, int]:
    """A checkpoint's network in FP16 on the GPU, and the side of its crops."""
    content = read_checkpoint(checkpoint)
    if content.config is None:
        raise SystemExit(f"error: {checkpoint}: not a MAL checkpoint")
    network = build_network(content.config).eval()
    load_into(network, content, "student")
    return network.half().cuda(), content.config.crop_size


@torch.inference_mode()
def boxes_per_second(run: Callable[[Tensor], Tensor], image: Tensor, seconds: float, rounds: int) -> float:
    """The best round, each of about so many seconds."""
    for _ in range(10):
        run(image)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best, turns = 0.0, 10
    for _ in range(rounds + 1):  # the first finds out how many runs a round takes
        begin.record()
        for _ in range(turns):
            run(image)
        end.record()
        torch.cuda.synchronize()
        taken = begin.elapsed_time(end) / 1000
        best = max(best, turns * len(image) / taken)
        turns = max(10, round(turns * seconds / taken))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--batch", default="8,32")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    network, side = open_network(arguments.checkpoint)

    grid = network.config.grid(SizeClass.LARGE)

    def run(image: Tensor) -> Tensor:
        return network.forward_grid(image, grid)

    ways: dict[str, Callable[[Tensor], Tensor]] = {"eager": run, "compiled": torch.compile(run)}
    figures = []
    for batch in (int(part) for part in arguments.batch.split(",")):
        image = torch.rand(batch, 3, side, side, device="cuda", dtype=torch.float16)
        for name, way in ways.items():
            speed = boxes_per_second(way, image, arguments.seconds, arguments.rounds)
            figures.append({"way": name, "batch": batch, "boxes_per_second": round(speed, 1)})
            print(f"{name}, batch {batch}: {speed:.1f} boxes/s")
    save(
        arguments.json,
        {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "checkpoint": arguments.checkpoint.name,
            "input_size": side,
            "precision": "fp16",
            "figures": figures,
        },
    )


if __name__ == "__main__":
    main()
