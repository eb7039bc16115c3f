"""One checkpoint file: recognised by content whoever wrote it, read, written. Which a run keeps: `kept_checkpoints`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.base.files import open_regular
from mal_trt.base.outputs import SPACE, replaced
from mal_trt.training.loading import Loaded, State, describe, load_backbone, load_encoder, load_network, some
from mal_trt.training.network import MALNetwork, NetworkConfig
from mal_trt.training.pickled import load_tensors, read_zip
from mal_trt.training.pretrained import read_hub, read_package
from mal_trt.training.vit import SIZES

# What PyTorch before 1.6 wrote after the two bytes of the pickle protocol.
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
FORMAT, VERSION = "mal-trt", 1
HELP = "expected a MAL checkpoint, an MAE, DeiT or timm file, or one of mal-trt's own"
DECRYPT = "decrypt it with the TAO Toolkit and its key, then give the .pth"
WRAPPERS = ("state_dict", "model", "module", "model_state", "model_state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, on the CPU.

    kind: "mal-trt" (ours), "mal" (TAO, NVlabs), "vit" (MAE, DeiT, a timm ViT of MAL's sizes) or "timm" (any
    other state dict). student, teacher: whole networks; backbone: an encoder. config: the network these
    weights belong to as far as the file tells (a TAO file says neither the crop size nor whether the scale is
    adjusted: those are the defaults); None for kind "timm".
    """

    path: Path
    kind: str
    config: NetworkConfig | None
    student: State | None = None
    teacher: State | None = None
    backbone: State | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] | None = None

    def weights(self, part: str) -> State | None:
        """Tensors of "student" or "teacher", names without that prefix; a lone network serves as either."""
        if part not in ("student", "teacher"):
            raise InputError(f"weights {part!r}: expected student or teacher")
        own, other = (self.student, self.teacher) if part == "student" else (self.teacher, self.student)
        return own if own is not None else other


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint of any kind this package knows. Never executes code from the file.

    Raises InputError naming what the file looks like when it is none of them.
    """
    path = Path(path)
    content = _read_content(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state dict; {HELP}")
    if content.get("format") == FORMAT:
        return _own(path, content)
    if content.get("state_dict_encrypted"):
        raise InputError(f"{path}: its weights are encrypted; {DECRYPT}")
    state = _state_dict(path, content)
    meta = {key: value for key, value in content.items() if isinstance(value, (int, float, str))}
    if any(name.startswith(("student.", "teacher.")) for name in state):
        student, teacher = (_strip(state, f"{part}.") for part in ("student", "teacher"))
        config = mal_config(path, student or teacher)
        return Checkpoint(path, "mal", config, student or None, teacher or None, meta=meta)
    if "roi_head.mlp1.weight" in state:
        return Checkpoint(path, "mal", mal_config(path, state), student=state, meta=meta)
    if any(name.startswith("backbone.") for name in state):
        state = _strip(state, "backbone.")
    return Checkpoint(path, *_encoder(state), backbone=state, meta=meta)


def read_encoder_package(name: str) -> Checkpoint:
    """An encoder out of an installed package, such as "efficientnet-lite0"; meta["pretrained"] says which file."""
    state, provenance = read_package(name)
    return Checkpoint(Path(name), "timm", None, backbone=state, meta={"pretrained": provenance})


def read_encoder_hub(name: str) -> Checkpoint:
    """A timm model's weights from timm's cache or its hub, such as "resnet18.a1_in1k"."""
    state, provenance = read_hub(name)
    return Checkpoint(Path(name), "timm", None, backbone=state, meta={"pretrained": provenance})


def load_into(network: MALNetwork, checkpoint: Checkpoint, part: str = "student") -> Loaded:
    """Set a network's weights from a checkpoint: the whole network, or its encoder from a pretraining file or from a
    larger network of its family.

    Raises InputError naming the missing or misshapen tensors.
    """
    where, config = str(checkpoint.path), checkpoint.config
    ours = network.config
    if config is not None and checkpoint.backbone is None and config.layout != ours.layout:
        raise InputError(
            f"{where}: is of the {config.layout} layout, the network of the {ours.layout} layout; "
            f"use --layout {config.layout}"
        )
    state = checkpoint.weights(part)
    if state is not None:
        smaller = ours.layout == "pyramid" and config is not None and config.arch != ours.arch
        return (load_encoder if smaller else load_network)(network, state, where)
    if checkpoint.backbone is None:
        raise InputError(f"{where}: holds no {part} weights")
    return load_backbone(network, checkpoint.backbone, where)


def save_checkpoint(
    path: Path | str,
    config: NetworkConfig,
    *,
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor] | None = None,
    meta: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
) -> None:
    """Write our own format, atomically; `torch.load(weights_only=True)` reads it too.

    student, teacher: state dicts of MALNetwork. meta: JSON-like facts. trainer: what resuming needs.
    """
    path = Path(path)
    plain = asdict(config)
    plain["frozen_stages"] = list(config.frozen_stages)
    if config.sizes is None:  # versions that know none can read it
        del plain["sizes"]
    plain["trimmed"] = [list(entry) for entry in config.trimmed]
    if not config.trimmed:
        del plain["trimmed"]  # which versions before it do not know
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": plain,
        "meta": dict(meta or {}),
    }
    document["student"] = _portable(student)
    if teacher is not None:
        document["teacher"] = _portable(teacher)
    if trainer is not None:
        document["trainer"] = dict(trainer)
    try:
        with replaced(path) as part, part.open("wb") as file:
            torch.save(document, file)
    except RuntimeError as error:  # PyTorch's own words for a full disk
        raise RunError(f"{path}: cannot be written ({one_line(error)}); {SPACE}") from None


def _portable(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _read_content(path: Path) -> Any:
    """The file's object with tensors read and unknown objects replaced by None."""
    try:
        with open_regular(path) as file:
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise InputError(f"{path}: is empty")
    if _is_safetensors(start):
        return _read_safetensors(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return load_tensors(_pruned(read_zip(archive, path)))
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: is damaged ({type(error).__name__}: {error}); fetch it again") from None
    if start.startswith(LEGACY, 2):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError) as error:  # what torch raises where the file ends too soon
            raise InputError(f"{path}: is damaged ({str(error) or 'it ends too soon'}); fetch it again") from None
        except Exception:
            raise InputError(
                f"{path}: an old (before PyTorch 1.6) file with more than tensors in it; open it once with a "
                "PyTorch you trust it with and save its state dict again"
            ) from None
    raise InputError(f"{path}: {_looks(path, start)}; {HELP}")


def _pruned(content: Any) -> Any:
    """Foreign files also carry optimiser state, twice the weights' size: do not read it."""
    if isinstance(content, Mapping) and content.get("format") != FORMAT:
        unused = ("optimizer_states", "optimizer", "optimizers", "lr_schedulers", "callbacks", "loops")
        return {key: value for key, value in content.items() if key not in unused}
    return content


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is damaged ({error}); fetch it again") from None


def _looks(path: Path, start: bytes) -> str:
    """What a file that is no checkpoint looks like."""
    if path.suffix in (".tlt", ".etlt"):
        return f"an encrypted {path.suffix} file; {DECRYPT}"
    if start.startswith(b"PK"):
        return "a truncated zip file: the download was cut short"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself: run `git lfs pull`"
    if re.match(rb"\s*<(!doctype|html)", start, re.IGNORECASE):
        return "a web page saved under that name"
    if start.startswith(b"\x80"):
        return "a Python pickle that is not PyTorch's"
    if path.suffix == ".onnx":
        return "an ONNX model, already exported"
    if path.suffix in (".engine", ".plan"):
        return "a TensorRT engine"
    return "not a PyTorch or safetensors file"


def _own(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(f"{path}: checkpoint version {version}, this mal-trt reads up to {VERSION}; upgrade it")
    try:
        plain, student = dict(content["config"]), dict(content["student"])
        unknown = sorted(set(plain) - {entry.name for entry in fields(NetworkConfig)})
        if unknown:
            raise InputError(f"{path}: network options this mal-trt does not know: {some(unknown)}; upgrade it")
        config = NetworkConfig(**plain)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a mal-trt checkpoint with a damaged part ({error})") from None
    meta = dict(content.get("meta") or {})
    return Checkpoint(path, FORMAT, config, student, content.get("teacher"), meta=meta, trainer=content.get("trainer"))


def _state_dict(path: Path, content: Mapping[str, Any]) -> State:
    """The dict of tensors inside the usual wrappers, without a DataParallel prefix."""
    while True:
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        keys = some(str(key) for key in content) or "nothing"
        raise InputError(f"{path}: holds no tensors, only {keys}; {HELP}")
    return _strip(state, "module.") if all(name.startswith("module.") for name in state) else state


def _strip(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def mal_config(path: Path, state: State) -> NetworkConfig:
    """Configuration of a MAL network, read off its tensors' names and shapes."""
    config = _vit_config(_strip(state, "backbone."))
    convs = sorted(
        (int(name.split(".")[2]), name) for name in state if re.fullmatch(r"mask_head\.convs\.\d+\.conv\.weight", name)
    )
    if config is None or not convs:
        raise InputError(f"{path}: no MAL network this package knows; the file looks like {describe(state)}")
    options = asdict(config)
    options["mask_head_num_convs"] = len(convs)
    options["mask_head_hidden_channel"] = state[convs[0][1]].shape[0]
    options["mask_head_out_channel"] = state[convs[-1][1]].shape[0]
    if "mask_head.reduce.weight" in state:
        options["layout"] = "hybrid"
    return NetworkConfig(**options)


def _encoder(state: State) -> tuple[str, NetworkConfig | None]:
    config = _vit_config(state)
    return ("timm", None) if config is None else ("vit", config)


def _vit_config(state: State) -> NetworkConfig | None:
    """Arch, layout and depth of a ViT encoder in MAL's sizes, None if it is something else."""
    table = state.get("pos_embed")
    if table is None or table.ndim != 3 or "blocks.0.attn.qkv.weight" not in state or "cls_token" not in state:
        return None
    size = next((name for name, size in SIZES.items() if size.width == table.shape[2]), None)
    patch = state.get("patch_embed.proj.weight")
    if size is None or (patch is None and "patch_embed.proj.0.0.weight" not in state):
        return None
    side = 16 if patch is None else int(patch.shape[-1])
    if side not in (14, 16):
        return None
    blocks = 1 + max(int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name)))
    family = "deit" if size == "tiny" else "mae"
    return NetworkConfig(
        arch=f"vit-{family}-{size}/{side}",
        layout="conv_stem" if patch is None else "patch",
        depth=None if blocks == SIZES[size].depth else blocks,
    )
