"""Time and memory of the mean field against the straightforward way: an unfold in every iteration.

    python benchmarks/mean_field_speed.py --json benchmarks/results/mean_field_speed.json

Both run in turn on the same random scene; the median of the rounds' ratios counts. Memory is the peak above what
was held before the call: on the CPU torch's own record of every allocation, on CUDA that of its allocator.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import save
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from mal_trt.training.mean_field import MeanField

Refine = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def unfolded(start: Tensor, image: Tensor, mask: Tensor, field: MeanField) -> Tensor:
    """The mean field as one would first write it: [B,k*k,H,W] neighbours cut out anew in every iteration."""
    batch, _, height, width = image.shape
    size, radius = field.kernel_size, field.kernel_size // 2

    def neighbours(x: Tensor) -> Tensor:
        return F.unfold(x, size, padding=radius).view(batch, x.shape[1], size**2, height, width)

    distance = (neighbours(image) - image[:, :, None]).square().sum(1)
    kernel = torch.exp(-distance / (2 * field.zeta**2)) * neighbours(torch.ones_like(mask))[:, 0]
    q = (start * mask).clamp(field.low, field.high)
    for _ in range(field.iterations):
        background = torch.exp((neighbours(torch.log(1 - q))[:, 0] * kernel).sum(1, keepdim=True))
        foreground = torch.exp((neighbours(torch.log(q))[:, 0] * kernel).sum(1, keepdim=True)) * mask
        q = (foreground / (1e-6 + background + foreground)).clamp(field.low, field.high)
    return q


def scene(batch: int, side: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Soft start [B,1,S,S], smooth noisy picture [B,3,S,S], box [B,1,S,S]."""
    generator = torch.Generator().manual_seed(0)

    def smooth(channels: int, cells: int) -> Tensor:
        coarse = torch.randn(batch, channels, cells, cells, generator=generator)
        return F.interpolate(coarse, (side, side), mode="bilinear")

    image = smooth(3, 16) + 0.03 * torch.randn(batch, 3, side, side, generator=generator)
    mask = torch.zeros(batch, 1, side, side)
    mask[..., side // 6 : -side // 8, side // 5 : -side // 5] = 1
    return smooth(1, 8).sigmoid().to(device), image.to(device), mask.to(device)


def seconds(refine: Refine, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    started = time.perf_counter()
    refine(*inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(refine: Refine, inputs: tuple[Tensor, Tensor, Tensor]) -> int:
    """Most bytes held at once above the inputs."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        refine(*inputs)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        refine(*inputs)
    held = most = 0
    for event in record.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    field = MeanField(iterations=arguments.iterations)
    ways: dict[str, Refine] = {
        "unfold": lambda start, image, mask: unfolded(start, image, mask, field),
        "ours": field.soft,
    }
    inputs = scene(arguments.batch, arguments.side, arguments.device)
    difference = (ways["unfold"](*inputs) - ways["ours"](*inputs)).abs().max().item()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, refine in ways.items():
            times[name].append(seconds(refine, inputs))
        print(f"round {number}: " + ", ".join(f"{name} {1e3 * t[-1]:.0f} ms" for name, t in times.items()))
    ratios = [a / b for a, b in zip(times["unfold"], times["ours"], strict=True)]
    memory = {name: peak(refine, inputs) for name, refine in ways.items()}
    ratio = statistics.median(ratios)
    print(f"{ratio:.2f} times as fast (median), {memory['unfold'] / 1e6:.1f} against {memory['ours'] / 1e6:.1f} MB")
    save(
        arguments.json,
        {
            "device": torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu",
            "torch": torch.__version__,
            "threads": arguments.threads,
            "shape": [arguments.batch, arguments.side, arguments.side],
            "iterations": arguments.iterations,
            "ms": {name: [round(1e3 * x, 1) for x in t] for name, t in times.items()},
            "ratio_median": round(ratio, 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "peak_mb": {name: round(x / 1e6, 2) for name, x in memory.items()},
            "largest_difference": difference,
        },
    )


if __name__ == "__main__":
    main()
