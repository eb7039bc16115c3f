"""What a run takes over from the checkpoint it begins with: the network it is of, as far as nobody says otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.kept_checkpoints import LAST
from mal_trt.training.network import NetworkConfig
from mal_trt.training.trainer import network_options
from mal_trt.training.vit import is_vit, parse_vit

# Of the network alone, and never the size of its crops, which an arch that is named beside it leaves open.
SHAPE = ("layout", "depth", "head_convs", "head_width", "head_out", "trimmed")


def completed(given: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """TrainConfig's values and those of the network in the checkpoint that they name; and a line that says which layout
    was taken, or None if none was.

    Without `arch` it is the checkpoint's network, and `trained` (see `recipe_config`) says whether that is a whole one.
    With it, the rest of its shape is the checkpoint's where that holds a network of that arch. A run that goes on keeps
    what it was begun with.
    """
    start = given.get("start_from")
    begun = _begun(given)
    if begun is not None and "arch" in given:
        run = read_checkpoint(begun).meta.get("run") or {}
        return {**{name: run[name] for name in SHAPE if name in run}, **given}, None
    if not start:
        return given, None
    found = network_options(start)
    if "arch" in given:
        if not found or not _same(found["arch"], given["arch"]):
            return given, None
        found = {name: found[name] for name in SHAPE if name in found}
    else:
        found["trained"] = "head_width" in found
    if {"crop_size", "sizes"} & given.keys():  # the one without the other
        found = {name: value for name, value in found.items() if name not in ("crop_size", "sizes")}
    taken = None
    if "layout" in found and "layout" not in given:
        taken = f"{start}: {found['layout']} layout, taken from the checkpoint"
    if "arch" in given and found.get("layout") == NetworkConfig.layout:
        del found["layout"]  # as before layouts were taken over, so that older runs can go on
    return {**found, **given}, taken


def shaped(config: TrainConfig) -> tuple[TrainConfig, str | None]:
    """A ViT's run with the layout and depth of the checkpoint that it starts from, where it says neither; and a line
    that says which layout was taken, or None if the run would have had it anyway."""
    if config.start_from is None or not is_vit(config.arch) or None not in (config.layout, config.depth):
        return config, None
    names = ("arch", "layout", "depth", "start_from", "out", "resume", "resume_from")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    found, taken = completed(given)
    trimmed = config.trimmed or found.get("trimmed", ())
    new = replace(config, layout=found.get("layout"), depth=found.get("depth"), trimmed=trimmed)
    return new, None if new.layout == config.layout else taken


def _begun(given: dict[str, Any]) -> Path | None:
    """The checkpoint that a run goes on from, if it does."""
    if given.get("resume") and given.get("start_from") and given.get("out"):
        last = Path(given["out"]) / LAST
        if last.is_file():
            return last
    again = given.get("resume_from")
    return Path(again) if again else None


def _same(arch: str, other: str) -> bool:
    return parse_vit(arch) == parse_vit(other) if is_vit(arch) and is_vit(other) else arch == other
