"""The fields of an experiment spec: those of NVIDIA TAO's MAL, and beside them ours; all typed, for OmegaConf.

A field says what it is for and which TrainConfig field it sets (`to`). Fields without `to` are combined in
`spec.py`, or belong to the other verbs (`spec_use`) and are accepted without effect on training.
"""

# ruff: noqa: RUF009 - opt() makes dataclass fields

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def opt(default: Any, help: str, to: str | None = None, own: bool = False) -> Any:
    """A field of the spec. own: TAO does not know it."""
    metadata = {"help": help, "to": to, "own": own}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Cudnn:
    benchmark: bool = opt(False, "let cuDNN try its algorithms", "cudnn_benchmark")
    deterministic: bool = opt(True, "only deterministic cuDNN algorithms", "cudnn_deterministic")


@dataclass
class Dataset:
    type: str = opt("coco", "coco, yolo or voc; what is found at train_ann_path decides")
    train_ann_path: Any = opt("", "boxes: a file or folder of any format that is read; or a list", "boxes")
    train_img_dir: Any = opt("", "their pictures: folder or .tar; or a list as long", "images")
    boxes_format: str | None = opt(None, "the boxes' format; null: told by their content", "boxes_format", True)
    split: str | None = opt(None, "one split of a data set alone, such as train", "split", True)
    val_split: str | None = opt(None, "the split to validate on", "val_split", True)
    rescale: bool = opt(False, "pictures were resized since: scale the boxes to them", "rescale", True)
    val_ann_path: str = opt("", "boxes and masks for validation; empty: none", "val_boxes")
    val_img_dir: str = opt("", "their pictures", "val_images")
    min_obj_size: float = opt(2048.0, "smallest box trained on, square pixels", "min_area")
    max_obj_size: float = opt(1e10, "largest box trained on, square pixels", "max_area")
    num_workers_per_gpu: int = opt(2, "processes that cut crops", "workers")
    load_mask: bool = opt(True, "false: no validation against masks")
    crop_size: int = opt(512, "side of the crops, pixels", "crop_size")
    sizes: list[int] | None = opt(
        None, "sides of the crops of small, medium and large boxes; null: crop_size for all", "sizes", True
    )
    boxes_per_picture: int | None = opt(
        None, "at most so many boxes of a picture in an epoch", "boxes_per_picture", True
    )
    balance: float = opt(0.0, "0: boxes as they come, 1: every class equally often, 0.5: between", "balance", True)
    together: int = opt(1, "boxes of a picture in a row, decoded once: faster, mixed less", "together", True)
    preload: bool = opt(False, "keep the decoded pictures in memory", "preload", True)
    figures: float = opt(0.0, "share of crops with a drawn figure, or a scene of cut-outs", "figures", True)
    paste: float = opt(0.0, "share of crops with something pasted in (recipe distill, or targets)", "paste", True)
    cutouts: str | None = opt(None, "folder of pictures with a transparent ground to paste", "cutouts", True)
    priors: str | None = opt(None, "masks of an earlier model, .npz (recipe small)", "priors", True)
    targets: str | None = opt(None, "an ensemble's soft masks, .npz (recipes small, distill)", "targets", True)
    jitter: float = opt(0.0, "crops around boxes whose sides are off by up to this share", "jitter", True)
    strong: bool = opt(False, "harder changes of the student's crops", "strong", True)
    val_limit: int | None = opt(None, "validate on so many boxes, drawn once", "val_limit", True)


@dataclass
class Train:
    recipe: str = opt(
        "tao", "tao: as published; small: for small data sets; distill: a teacher's masks", "recipe", True
    )
    teacher: str | None = opt(None, "model whose masks are learnt (recipe distill)", "teacher", True)
    teacher_weights: str | None = opt(None, "student, teacher or mixed: which of its networks", "teacher_weights", True)
    teacher_cache: str | None = opt(None, "file of its masks; default: in the run's folder", "teacher_cache", True)
    num_gpus: int = opt(1, "GPUs; -1: all")
    gpu_ids: list[int] = opt([0], "which ones")
    num_nodes: int = opt(1, "machines", "nodes")
    seed: int = opt(1234, "of weights, crops and order", "seed")
    cudnn: Cudnn = field(default_factory=Cudnn)
    num_epochs: float = opt(10, "passes over the boxes", "epochs")
    checkpoint_interval: int = opt(1, "a checkpoint every so many epochs or steps")
    checkpoint_interval_unit: str = opt("epoch", "epoch or step")
    checkpoint_minutes: float = opt(5.0, "and at least every so many minutes", "checkpoint_minutes", True)
    keep: int = opt(3, "best checkpoints kept, by validation mIoU", "keep", True)
    validation_interval: float = opt(1, "validation every so many epochs", "validate_epochs")
    patience: int | None = opt(None, "stop after so many validations without a better one; 0: never", "patience", True)
    validation_steps: int | None = opt(None, "validation every so many steps instead", "validate_steps", True)
    resume_training_checkpoint_path: str | None = opt(None, "checkpoint of ours to continue", "resume_from")
    results_dir: str | None = opt(None, "folder of this run; default: train in the top-level results_dir")
    batch_size: int = opt(3, "boxes per step and GPU", "batch")
    accum_grad_batches: int = opt(1, "batches per optimiser step", "accumulate")
    use_amp: bool = opt(True, "16 bit where it is safe, on GPUs")
    precision: str | None = opt(None, "fp32, bf16 or fp16 instead of use_amp", "precision", True)
    pretrained_model_path: str | None = opt(None, "to start from: checkpoint, encoder, .onnx, bundled", "start_from")
    optim_type: str = opt("adamw", "adamw")
    optim_momentum: float = opt(0.9, "not used by adamw")
    lr: float = opt(1e-6, "learning rate for each box of a step", "lr")
    min_lr: float = opt(0.0, "not used: see min_lr_rate")
    min_lr_rate: float = opt(0.2, "lowest rate, as a share of the highest", "min_lr_rate")
    num_wave: float = opt(1.0, "half waves of the cosine", "waves")
    wd: float = opt(0.0005, "weight decay", "weight_decay")
    optim_eps: float = opt(1e-8, "AdamW epsilon", "eps")
    optim_betas: list[float] = opt([0.9, 0.9], "AdamW betas", "betas")
    warmup_epochs: float = opt(1, "epochs of rising rate", "warmup_epochs")
    layer_decay: float = opt(1.0, "factor on the rate from a ViT block to the one below", "layer_decay", True)
    encoder_lr: float = opt(1.0, "factor on the rate of a mal-* network's encoder", "encoder_lr", True)
    encoder_weight_decay: float | None = opt(None, "its weight decay; default: wd", "encoder_weight_decay", True)
    clip: float = opt(0.0, "largest gradient norm, 0: any", "clip", True)
    margin_rate: list[float] = opt([0.0, 1.2], "random margins around the box, share of its sides", "margin_rate")
    test_margin_rate: list[float] = opt([0.6, 0.6], "margin of validation crops")
    mask_thres: list[float] = opt([0.1], "mask above this probability; three: small, medium, large", "thresholds")
    loss_mil_weight: float = opt(4.0, "weight of the box term", "mil_weight")
    loss_crf_weight: float = opt(0.5, "weight of the self-training term", "crf_weight")
    crf_zeta: float = opt(0.1, "colour bandwidth of the mean field", "crf_zeta")
    crf_kernel_size: int = opt(3, "its window, pixels", "crf_kernel")
    crf_num_iter: int = opt(100, "its iterations", "crf_iterations")
    loss_crf_step: int = opt(4000, "steps of the first epoch over which the self-training term rises", "crf_steps")
    loss_mil_step: int = opt(1000, "steps of the first epoch over which the box term rises", "mil_steps")
    colour: list[float] = opt([0.5, 0.5], "exponent of the colour term, from and to (recipe small)", "colour", True)
    prior_weight: list[float] = opt([0.6, 0.2], "weight of priors, from and to (recipe small)", "prior_weight", True)
    crf_size_ratio: float = opt(1, "mean field resolution over the logits'", "crf_size_ratio")
    crf_value_high_thres: float = opt(0.9, "probabilities are kept below this", "crf_high")
    crf_value_low_thres: float = opt(0.1, "and above this", "crf_low")
    log_steps: int = opt(20, "steps per row of log.csv and TensorBoard", "log_steps", True)
    picture_steps: int = opt(500, "steps between TensorBoard pictures, 0: none", "picture_steps", True)


@dataclass
class Model:
    arch: str = opt("vit-mae-base/16", "vit-mae-base/16, vit-deit-tiny/16, mal-lite0, ... or a timm backbone", "arch")
    frozen_stages: list[int] = opt(
        [-1], "not trained: 0 patch embedding or stem, i block or stage i; -1: all is", "frozen_stages"
    )
    mask_head_num_convs: int = opt(4, "convolutions of the mask head", "head_convs")
    mask_head_hidden_channel: int = opt(256, "their channels", "head_width")
    mask_head_out_channel: int = opt(256, "channels of the last one", "head_out")
    teacher_momentum: float = opt(0.996, "share of the teacher kept each step", "teacher_momentum")
    teacher_momentum_end: float | None = opt(None, "its value at the end, along a cosine", "teacher_momentum_end", True)
    not_adjust_scale: bool = opt(False, "one mask head grid for boxes of every size")
    mask_scale_ratio_pre: int = opt(1, "enlargement before the mask head", "scale_ratio_pre")
    mask_scale_ratio: float = opt(2.0, "enlargement inside it", "scale_ratio")
    vit_dpr: float = opt(0.0, "drop path rate", "drop_path")
    layout: str | None = opt(None, "patch, conv_stem, timm or hybrid; default: patch", "layout", True)
    depth: int | None = opt(None, "blocks of the ViT; default: its own", "depth", True)


@dataclass
class Inference:
    num_gpus: int = opt(1, "of TAO's inference")
    gpu_ids: list[int] = opt([0], "of TAO's inference")
    num_nodes: int = opt(1, "of TAO's inference")
    checkpoint: str | None = opt(None, "of TAO's inference; see mal-trt label")
    trt_engine: str | None = opt(None, "of TAO's inference")
    results_dir: str | None = opt(None, "of TAO's inference")
    batch_size: int = opt(3, "of TAO's inference")
    ann_path: str = opt("", "of TAO's inference")
    img_dir: str = opt("", "of TAO's inference")
    label_dump_path: str = opt("instances_val2017_mal.json", "of TAO's inference")
    load_mask: bool = opt(False, "of TAO's inference")


@dataclass
class Evaluate:
    num_gpus: int = opt(1, "of TAO's evaluate")
    gpu_ids: list[int] = opt([0], "of TAO's evaluate")
    num_nodes: int = opt(1, "of TAO's evaluate")
    checkpoint: str | None = opt(None, "of TAO's evaluate; see mal-trt evaluate")
    trt_engine: str | None = opt(None, "of TAO's evaluate")
    results_dir: str | None = opt(None, "of TAO's evaluate")
    batch_size: int = opt(3, "of TAO's evaluate")
    use_mixed_model_test: bool = opt(False, "validate the mean of student and teacher")
    use_teacher_test: bool = opt(False, "validate the teacher")
    comp_clustering: bool = opt(False, "not used")
    use_flip_test: bool = opt(False, "validate with the mirrored crop too", "val_flip")


@dataclass
class Spec:
    model_name: str = opt("mal", "not used")
    results_dir: str = opt("", "the run's files go to its folder train")
    encryption_key: str | None = opt(None, "not used: checkpoints are not encrypted")
    strategy: str = opt("ddp", "several GPUs always train with ddp")
    wandb: dict[str, Any] = opt({}, "not used: see log.csv and TensorBoard")
    dataset: Dataset = field(default_factory=Dataset)
    train: Train = field(default_factory=Train)
    model: Model = field(default_factory=Model)
    inference: Inference = field(default_factory=Inference)
    evaluate: Evaluate = field(default_factory=Evaluate)
