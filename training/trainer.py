"""One run's state (student, teacher, optimiser, schedule) and what a step does to it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mal_trt.base.errors import InputError, RunError
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import Checkpoint, load_into, read_checkpoint, save_checkpoint
from mal_trt.training.colour import ColourBatch, ColourLoss
from mal_trt.training.config import FREE, JUDGING, JUDGING_BY_BOXES, TrainConfig
from mal_trt.training.data import Sample
from mal_trt.training.dense import Dense, dense_loss
from mal_trt.training.devices import make_fabric
from mal_trt.training.distil_loss import DistilLoss
from mal_trt.training.exported import read_start
from mal_trt.training.losses import LossTerms, MalLoss
from mal_trt.training.mean_field import MeanField
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.optimiser import build_optimizer
from mal_trt.training.pretrained import is_package
from mal_trt.training.schedule import CosineSchedule, momentum_at, update_teacher
from mal_trt.training.sparse import META, Zeros, zeros_of
from mal_trt.training.stopping import Stopping

# Share of the run over which the colour target gains its full weight.
TARGET_RAMP = 0.1


class Trainer:
    """Student, teacher, optimiser and schedule of one run; `step` is the number of steps already done.

    boxes: digest of those it trains on, if known: a run that goes on needs the same. seen: the last batch with its
    logits, student's and teacher's (or those of the soft masks it learns), for pictures.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int, fabric: Fabric | None = None) -> None:
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.fabric = make_fabric(config) if fabric is None else fabric
        self.device = self.fabric.device
        torch.manual_seed(config.seed)
        self.network_config = network_config(config)
        # Convolutional encoders are fastest, on processors and GPUs, with a pixel's channels side by side.
        pyramid = self.network_config.layout == "pyramid"
        order = torch.channels_last if pyramid else torch.preserve_format
        self.student, self.teacher = (
            build_network(self.network_config).to(self.device).to(memory_format=order) for _ in range(2)
        )
        self.step = 0
        base = config.lr * self.boxes_per_step
        self.schedule = CosineSchedule(
            base, base * config.min_lr_rate, config.epochs, config.warmup_epochs, config.waves
        )
        self.optimizer = build_optimizer(self.student, config, base)
        if config.recipe != "tao":
            # From scratch the two networks share no features, so the teacher starts as the student's copy.
            self.teacher.load_state_dict(self.student.state_dict())
        field = MeanField(config.crf_zeta, config.crf_kernel, config.crf_iterations, config.crf_low, config.crf_high)
        self.mal_loss = MalLoss(
            config.mil_weight, config.crf_weight, config.mil_steps, config.crf_steps, config.crf_size_ratio, field
        )
        self.colour_loss = ColourLoss(
            config.mil_weight,
            config.crf_weight,
            prior_weight=config.prior_weight,
            colour=config.colour,
            soft=config.targets is not None,
            mean_field=field,
        )
        self.distil_loss = DistilLoss(mil_weight=config.mil_weight)
        self.dense = Dense(config.dense, self.device) if config.dense is not None else None
        self.zeros = Zeros({})
        self.origin: dict[str, Any] | None = None
        self.boxes: str | None = None
        self.stopping = Stopping(config.patience)
        self._student = self.fabric.setup_module(self.student, move_to_device=False)
        self._optimizer: Any = self.fabric.setup_optimizers(self.optimizer)
        self.seen: tuple[Sample, Tensor, Tensor] | None = None

    @property
    def boxes_per_step(self) -> int:
        """Samples of one optimiser step, over all processes."""
        return self.config.batch * self.config.accumulate * self.fabric.world_size

    @property
    def total_steps(self) -> int:
        return int(self.steps_per_epoch * self.config.epochs + 1e-6)  # 49 * (1 / 49) is a little less than 1

    def train_step(self, *batches: Sample) -> LossTerms:
        """One optimiser step on collated batches and teacher update.

        Returns the losses before it, the mean over batches and processes, on the CPU.
        """
        # The step's own seed: drop path does in a resumed run what it would have done.
        torch.manual_seed(self.config.seed + 1_000_003 * (self.step * self.fabric.world_size + self.fabric.global_rank))
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self._student, enabled=i + 1 < len(batches)):
                terms = self._losses(batch)
                parts.append(self._shared(terms, batch))
                self.fabric.backward(terms.total / len(batches))
        if self.config.clip:
            self.fabric.clip_gradients(
                self._student, self._optimizer, max_norm=self.config.clip, error_if_nonfinite=False
            )
        if self.config.recipe != "tao":
            self._set_lr(self.schedule((self.step + 1) / self.steps_per_epoch))
        self._optimizer.step()
        self.zeros.keep(self.student)
        if self.config.recipe == "tao":
            # Published order: the rate is set after the step, so step 0 runs at the base rate (with zero loss).
            self._set_lr(self.schedule(self.step / self.steps_per_epoch))
        update_teacher(self.teacher, self.student, self._momentum())
        self.step += 1
        return LossTerms(*torch.stack(parts).mean(0))

    def _losses(self, batch: Sample) -> LossTerms:
        student_crop = batch["student"].to(self.device, non_blocking=True)
        mask = batch["mask"].to(self.device, non_blocking=True)[:, None].float()
        area = batch["area"].to(self.device)
        image = normalise(student_crop)
        student_logits = self._student(image, area)
        if self.dense is not None:
            with self.fabric.autocast():
                dense = self.dense(image, area)
            self.seen = batch, student_logits.detach(), dense
            return dense_loss(student_logits, dense)
        if self.config.recipe == "distill":
            return self._distilled(student_logits, mask, batch)
        crop = batch["teacher"].to(self.device, non_blocking=True)
        with torch.no_grad(), self.fabric.autocast():
            teacher_logits = self.teacher(normalise(crop), area)
        self.seen = batch, student_logits.detach(), teacher_logits
        if self.config.recipe == "tao":
            epoch, inside = divmod(self.step, self.steps_per_epoch)
            return self.mal_loss(student_logits, teacher_logits, image, mask, epoch, inside)
        prior = batch["prior"].to(self.device)[:, None].float() / 255
        exact, has_prior, trust = (batch[k].to(self.device) for k in ("exact", "has_prior", "trust"))
        samples = ColourBatch(mask, exact, prior, has_prior, trust)
        rgb = crop.permute(0, 3, 1, 2).float() / 255
        ramp = min(1.0, self.step / (TARGET_RAMP * self.total_steps))
        return self.colour_loss(student_logits, teacher_logits, rgb, samples, ramp, self.step / self.total_steps)

    def _distilled(self, logits: Tensor, mask: Tensor, batch: Sample) -> LossTerms:
        """The loss against a finished teacher's masks: no other network has to look at the crops."""
        soft = batch["prior"].to(self.device)[:, None].float() / 255
        has_soft, trust, exact = (batch[k].to(self.device) for k in ("has_prior", "trust", "exact"))
        self.seen = batch, logits.detach(), torch.logit(soft, eps=1e-3)
        return self.distil_loss(logits, mask, soft, has_soft, trust, exact)

    def _shared(self, terms: LossTerms, batch: Sample) -> Tensor:
        """total, mil, crf as the mean over all processes; every process stops when any one's is no number."""
        own = torch.stack([terms.total, terms.mil, terms.crf]).detach()
        mean: Any = self.fabric.all_reduce(own.clone(), reduce_op="mean")
        values: list[float] = mean.tolist()
        if not math.isfinite(values[0]):
            rows = [] if torch.isfinite(own[0]) else torch.as_tensor(batch["row"]).tolist()
            raise BadLoss(self.step, dict(zip(("total", "mil", "crf"), values, strict=True)), rows)
        return torch.tensor(values)

    def _momentum(self) -> float:
        config = self.config
        momentum = momentum_at(self.step / self.total_steps, config.teacher_momentum, config.teacher_momentum_end)
        untrained = config.start_from is None or is_package(str(config.start_from))
        if config.recipe == "distill" or (config.recipe == "small" and untrained):
            # A young teacher is the mean of the few steps so far, not for a hundred steps mostly the untrained start.
            return min(momentum, 1 - 1 / (self.step + 2))
        return momentum

    def _set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    @property
    def lr(self) -> float:
        """Rate of the heads, the highest."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def save(self, path: Path, resumable: bool = True) -> None:
        """Checkpoint that `export` reads and, if resumable, `--resume` continues. Call it on rank 0."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "step": self.step,
            "stopping": self.stopping.state(),
        }
        save_checkpoint(
            path,
            self.network_config,
            student=self.student.state_dict(),
            teacher=self.teacher.state_dict(),
            meta={
                "step": self.step,
                "run": run_identity(self.config),
                "boxes": self.boxes,
                "thresholds": list(self.config.thresholds),
                "test_margin": self.config.test_margin,
                **({"pretrained": self.origin} if self.origin else {}),
                **({META: list(self.zeros.left)} if self.zeros.left else {}),
            },
            trainer=state if resumable else None,
        )

    def restore(self, path: Path) -> None:
        """Continue from `save`; the run must be the same one."""
        checkpoint = read_checkpoint(path)
        saved, now = checkpoint.meta.get("run"), run_identity(self.config)
        if checkpoint.trainer is None or saved is None:
            raise InputError(f"{path}: holds no training state to resume; use it with --from")
        before = run_identity(TrainConfig((), (), Path()))  # what a run of an earlier version had without saying so
        # Runs of an earlier version do not tell what judged them.
        differing = sorted(k for k in now if (k in saved or k in before) and saved.get(k, before.get(k)) != now[k])
        if differing:
            raise InputError(f"{path}: was trained with another {', '.join(differing)}; resume with the same options")
        if None not in (self.boxes, begun := checkpoint.meta.get("boxes")) and self.boxes != begun:
            raise InputError(
                f"{path}: was trained on other boxes or pictures than there are now, even if their files are called "
                "the same; resume with those, or start from its weights with --from and another --out"
            )
        load_into(self.student, checkpoint, "student")
        load_into(self.teacher, checkpoint, "teacher")
        self.optimizer.load_state_dict(checkpoint.trainer["optimizer"])
        self.fabric.strategy.precision.load_state_dict(checkpoint.trainer.get("scaler", {}))
        self.step = int(checkpoint.trainer["step"])
        if "stopping" in checkpoint.trainer:
            self.stopping.load(checkpoint.trainer["stopping"])
        self._know(checkpoint)

    def start(self, path: Path) -> None:
        """Weights to begin with, from any checkpoint, pretrained encoder or exported model."""
        checkpoint = read_start(path)
        for network, part in ((self.student, "student"), (self.teacher, "teacher")):
            load_into(network, checkpoint, part)
        self._know(checkpoint)

    def _know(self, checkpoint: Checkpoint) -> None:
        """What a checkpoint says of its weights: where they began, and which zeros stay."""
        self.origin = checkpoint.meta.get("pretrained")
        same = checkpoint.config is not None and checkpoint.config.arch == self.network_config.arch
        self.zeros = zeros_of(self.student, checkpoint.meta.get(META, ()) if same else (), str(checkpoint.path))


class BadLoss(RunError):
    """A loss that is no number. rows: the batch's annotations, empty where this process's own loss is fine."""

    def __init__(self, step: int, losses: dict[str, float], rows: list[int]) -> None:
        super().__init__(f"the loss became {losses['total']} at step {step}")
        self.step, self.losses, self.rows = step, losses, rows


def network_config(config: TrainConfig) -> NetworkConfig:
    """The network that a run's options name."""
    return NetworkConfig(
        arch=config.arch,
        layout=config.layout or "patch",
        depth=config.depth,
        crop_size=config.crop_size,
        sizes=config.sizes,
        mask_head_num_convs=config.head_convs,
        mask_head_hidden_channel=config.head_width,
        mask_head_out_channel=config.head_out or config.head_width,
        adjust_scale=config.adjust_scale,
        mask_scale_ratio_pre=config.scale_ratio_pre,
        mask_scale_ratio=config.scale_ratio,
        vit_dpr=config.drop_path,
        frozen_stages=config.frozen_stages,
        trimmed=config.trimmed,
    )


def run_identity(config: TrainConfig) -> dict[str, Any]:
    """The options that make a run what it is, as JSON values."""
    judging = JUDGING_BY_BOXES if config.val_boxes is None else JUDGING
    free = FREE if config.patience is None else FREE - set(judging)
    values = {k: v for k, v in asdict(config).items() if k not in free}
    return dict(json.loads(json.dumps(values, default=str)))


def network_options(path: Path) -> dict[str, Any]:
    """TrainConfig's values for the network in a checkpoint and how its masks are made, as far as the file tells."""
    if is_package(str(path)):
        return {"arch": str(path).replace("efficientnet-", "mal-")}
    checkpoint = read_start(path)
    config = checkpoint.config
    if config is None:
        return {}
    options: dict[str, Any] = {"arch": config.arch, "layout": config.layout, "depth": config.depth}
    if config.trimmed:
        options["trimmed"] = config.trimmed
    if checkpoint.kind != "vit":
        options["head_convs"] = config.mask_head_num_convs
        options["head_width"] = config.mask_head_hidden_channel
        options["head_out"] = config.mask_head_out_channel
    if checkpoint.kind in ("mal-trt", "onnx"):
        options["crop_size"], options["sizes"] = config.crop_size, config.sizes
        options["adjust_scale"] = config.adjust_scale
        options["scale_ratio_pre"] = config.mask_scale_ratio_pre
        options["scale_ratio"] = config.mask_scale_ratio
        if "test_margin" in checkpoint.meta:
            options["thresholds"] = tuple(checkpoint.meta["thresholds"])
            options["test_margin"] = float(checkpoint.meta["test_margin"])
    return options
