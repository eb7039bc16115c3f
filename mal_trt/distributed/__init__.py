"""Beyond one machine: labels in shards, in one process or on a Ray cluster, and what puts the shards together.

`label_shards` is `mal-trt label --shard-pictures` and `--ray`; `label_dataset` labels the rows of a Ray Dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mal_trt.distributed.dataset import label_dataset
    from mal_trt.distributed.merging import merge
    from mal_trt.distributed.run import label_shards

__all__ = ["label_dataset", "label_shards", "merge"]

_HOMES = {"label_dataset": "dataset", "label_shards": "run", "merge": "merging"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
