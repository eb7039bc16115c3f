"""Where a run computes: Lightning Fabric with the device, the precision and the processes of a configuration.

Fabric and not Lightning's Trainer: a step here sets the rate after the optimiser's, updates a second network and
is counted in samples, so that a killed run resumes to the same bits. Under the Trainer all of that is manual
optimisation with hooks around it (and no gradient accumulation); Fabric leaves the loop ours and brings
what is worth having: devices, mixed precision with its gradient scaler, processes on one machine or many
(also under torchrun and SLURM).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from mal_trt.base.errors import InputError
from mal_trt.training.config import TrainConfig

MIXED: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(config: TrainConfig) -> Fabric:
    """Not launched yet. InputError for devices or a precision this machine does not have."""
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    kind, devices = _devices(config)
    if kind == "cpu":
        _keep_freed_memory()
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    torch.backends.cudnn.deterministic = config.cudnn_deterministic
    _check_launched(config.nodes * (devices if isinstance(devices, int) else len(devices)))
    strategy: Any = "auto"
    if config.nodes > 1 or (devices if isinstance(devices, int) else len(devices)) > 1:
        # timm pyramids may own layers that no map depends on
        strategy = DDPStrategy(
            find_unused_parameters=not config.arch.startswith(("vit-", "mal-lite", "mal-edge", "mal-nano"))
        )
    return Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=config.nodes,
        strategy=strategy,
        precision=MIXED[_precision(config, kind)],
    )


def _check_launched(wanted: int) -> None:
    """InputError if torchrun started another number of processes than the run is for: each would train alone."""
    started = int(os.environ.get("WORLD_SIZE", wanted)) if "TORCHELASTIC_RUN_ID" in os.environ else wanted
    if started != wanted:
        raise InputError(
            f"torchrun started {started} processes and the run is for {wanted}; give train.num_nodes the number of "
            "machines and --devices the processes of each"
        )


def _keep_freed_memory() -> None:
    """Let this process keep what it frees, where the C library is glibc.

    By default each large tensor is fetched from the kernel and given back, page by page, in every step: a fifth of the
    time of a small network. The values of the options are those of malloc.h.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(trim_threshold, -1)  # never
    mallopt(top_pad, 256 << 20)
    mallopt(mmap_max, 0)


def _devices(config: TrainConfig) -> tuple[str, int | list[int]]:
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = config.devices
    if kind == "cpu":
        return kind, max(1, wanted) if isinstance(wanted, int) else len(wanted)
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not present:
        raise InputError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    if wanted == -1:
        return kind, present
    highest = wanted if isinstance(wanted, int) else max(wanted) + 1
    if highest > present:
        raise InputError(f"{highest} GPUs wanted (--devices, train.num_gpus, train.gpu_ids), {present} here")
    return kind, wanted if isinstance(wanted, int) else list(wanted)


def _precision(config: TrainConfig, kind: str) -> str:
    if config.precision == "fp16" and kind == "cpu":
        raise InputError("precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if config.precision != "auto":
        return config.precision
    if kind == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
