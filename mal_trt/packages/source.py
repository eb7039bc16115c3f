"""The model a package is made of: what it says of itself, and whether the package's server can load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.enginefile import covers, load_engine
from mal_trt.artifacts.flavor import TITLES
from mal_trt.artifacts.manifest import Manifest, manifest_path
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import contract_of, read_onnx
from mal_trt.artifacts.parity_file import engine_parity_path, read_parity
from mal_trt.backends.choice import ENGINES
from mal_trt.backends.signature import LOGITS, output_names
from mal_trt.base.errors import InputError
from mal_trt.base.gpu import find_gpus

Dims = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A model file. manifest: of an engine, None for ONNX. outputs: name -> dimensions behind the batch, -1 where
    they vary; None where the file does not tell."""

    path: Path
    contract: Contract
    manifest: Manifest | None
    outputs: dict[str, Dims] | None

    @property
    def largest(self) -> int | None:
        """Largest batch that it takes; None if any."""
        return min(profile.batch[2] for profile in self.manifest.profiles) if self.manifest else None


def open_source(model: str | Path, server: str) -> Source:
    """A model to package for a server, which errors name. InputError if it is none, or one that cannot be loaded."""
    path = resolve_model(model)
    if path.suffix.lower() in ENGINES:
        return _engine(path, server)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: not a .onnx file or an engine; `mal-trt export` turns a checkpoint into one")
    facts = read_onnx(path)
    contract = contract_of(facts.metadata, path)
    _check_sizes(path, contract, server)
    outputs = {name: _dims(shape) for name, shape in facts.outputs.items() if name.startswith(LOGITS)}
    if LOGITS not in outputs:
        raise InputError(f"{path}: it has no output called `{LOGITS}`; write it again with `mal-trt export`")
    return Source(path, contract, None, outputs)


def check_card(sources: list[Source], wanted: str | None) -> None:
    """InputError unless one of several engines runs on the GPU that the package is for.

    wanted: its compute capability, such as "8.6"; None is this machine's GPU, if there is one.
    """
    manifests = [source.manifest for source in sources if source.manifest]
    gpu = None if wanted else find_gpus(free=False).gpu
    target = wanted or (gpu.compute_capability if gpu else None)
    built = sorted({entry for manifest in manifests for entry in manifest.compute_capabilities})
    if manifests and target and not any(covers(entry, target) for entry in built):
        here = f"this machine's GPU is {target}" if gpu else f"the package is for {target}"
        raise InputError(
            f"{sources[0].path}: built for compute capability {', '.join(built)}, but {here}; build it on that card, "
            "or say with --compute-capability which one the package is for"
        )


def _engine(path: Path, server: str) -> Source:
    _, manifest = load_engine(path)
    _check_sizes(path, manifest.contract, server)
    if manifest.flavor != "tensorrt":
        raise InputError(
            f"{path}: an engine of {TITLES[manifest.flavor]}, which {server} cannot load; build one with `--flavor "
            "tensorrt` on the card that runs it, or package the .onnx file"
        )
    if "STRIP_PLAN" in manifest.flags:
        raise InputError(f"{path}: built without its weights, which {server} cannot fill in; build it with them")
    least = max(profile.batch[0] for profile in manifest.profiles)
    if least > 1:
        raise InputError(f"{path}: takes no batch below {least}; build it with --batch 1,BEST,MOST for {server}")
    return Source(path, manifest.contract, manifest, _engine_outputs(path, manifest.contract))


def _check_sizes(path: Path, contract: Contract, server: str) -> None:
    if contract.sizes is not None:
        raise InputError(
            f"{path}: takes crops of several sizes, and a package for {server} has one; export its checkpoint with "
            f"--input-size {contract.input_size}"
        )


def _engine_outputs(path: Path, contract: Contract) -> dict[str, Dims] | None:
    """From the parity file beside the engine: a manifest holds no shapes."""
    try:
        dims = read_parity(engine_parity_path(path))[0].logits[LOGITS].shape[-3:]
    except InputError:
        return None
    return dict.fromkeys(output_names(contract), dims)


def engine_files(source: Source, name: str) -> dict[str, Path]:
    """An engine and what lies beside it, by the names they get."""
    files = {name: source.path, f"{name}.json": manifest_path(source.path)}
    parity = engine_parity_path(source.path)
    return files | ({engine_parity_path(Path(name)).name: parity} if parity.is_file() else {})


def _dims(shape: str) -> Dims:
    """`float32 [batch, 1, 48, 48]` -> 1, 48, 48."""
    entries = shape[shape.index("[") + 1 : -1].split(", ")[1:]
    return tuple(int(entry) if entry.isdecimal() else -1 for entry in entries)
