"""Where other versions of TAO, and its data services, have the fields of a spec. The fields themselves: `spec_schema`.

TAO 4 and 5.0 name one `checkpoint` at the top, for every verb. The data services wrap MAL's spec in a block `mal`,
beside `autolabel_type: mal` and a few fields of their own.
"""

from __future__ import annotations

CHECKPOINT = "checkpoint"
SERVICE, BLOCK = "autolabel_type", "mal"

OLD_NAMES = {
    CHECKPOINT: "train.pretrained_model_path",
    "gpus": "train.gpu_ids",
    "gpu_ids": "train.gpu_ids",
    "num_gpus": "train.num_gpus",
    "num_nodes": "train.num_nodes",
    "train.save_every_k_epoch": "train.checkpoint_interval",
    "train.val_interval": "train.validation_interval",
}
# Beside the block `mal`. A field without a name is of no use here.
SERVICE_NAMES = {
    SERVICE: None,
    "grounding_dino": None,
    "gpu_ids": "inference.gpu_ids",
    "num_gpus": "inference.num_gpus",
    "batch_size": "inference.batch_size",
    "num_workers": "dataset.num_workers_per_gpu",
}


def plain_name(name: str, service: bool) -> str | None:
    """The name in a spec of MAL alone of a field of a spec, which is one of the data services or not; None: ignore."""
    if service and name.startswith(f"{BLOCK}."):
        return name.removeprefix(f"{BLOCK}.")
    return SERVICE_NAMES.get(name, name) if service else name
