"""`model.engine.json`: what an engine says about itself, beside the bare plan that trtexec and Triton load too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.artifacts.flavor import MODULES
from mal_trt.base.errors import InputError
from mal_trt.base.outputs import write_whole

SCHEMA = 1
UNCHECKED, PASSED, KEPT_ANYWAY = "unchecked", "passed", "kept anyway"


@dataclass(frozen=True)
class Profile:
    """Shapes an engine is built for. batch: smallest, best, largest. grid: side of `head_grid`, where there is one.
    side: of the crops, pixels; None is the contract's input_size."""

    batch: tuple[int, int, int]
    grid: int | None = None
    side: int | None = None


@dataclass(frozen=True)
class Manifest:
    """An engine's own description.

    contract: the model's `mal_trt` document. flavor, version: the TensorRT that built it, such as "tensorrt" and
    "10.3.0". compute_capabilities: GPUs it runs on, "8.6", or "8.0+" for all from there on. os: where it was built,
    such as "linux-x86_64". gpu: the one it was built on, or "". precision: kind of layer -> type -> how many, read
    from precision_source ("network" or "engine"). flags: names of builder flags set. workspace: bytes, None is the
    library's own limit. onnx: name of the file it was built from. parity: {"status": "unchecked"}, with
    "keep_anyway": true where a failed check is not to matter; or "passed" or "kept anyway" with figures. command:
    what builds it again.
    """

    contract: Contract
    flavor: str
    version: str
    compute_capabilities: tuple[str, ...]
    os: str
    gpu: str
    precision: dict[str, dict[str, int]]
    precision_source: str
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    opt_level: int
    workspace: int | None
    onnx: str
    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    parity: dict[str, Any]
    command: str
    producer: str
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The file's content."""
        document = asdict(self)
        document[METADATA_KEY] = document.pop("contract")
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read and check the document; InputError names what is wrong. `where` names the file in errors."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({error}); {REBUILD}") from None
        if not isinstance(document, dict):
            raise InputError(f"{where}: not an engine's manifest; {REBUILD}")
        if document.get("schema") != SCHEMA:
            raise InputError(
                f"{where}: manifest schema {document.get('schema')!r}, but this mal-trt reads schema {SCHEMA}; "
                "upgrade mal-trt or build the engine again"
            )
        values = {name: _checked(name, document.get(name), where) for name in _KINDS}
        contract = Contract.from_document(document.get(METADATA_KEY), where)
        return cls(contract=contract, **values)


REBUILD = "build it again with `mal-trt build-engine model.onnx -o model.engine`"
_KINDS: dict[str, type] = {
    **dict.fromkeys(("flavor", "version", "os", "gpu", "precision_source", "command", "producer"), str),
    **dict.fromkeys(("onnx", "onnx_sha256", "plan_sha256"), str),
    **dict.fromkeys(("compute_capabilities", "profiles", "flags"), list),
    **dict.fromkeys(("opt_level", "plan_bytes"), int),
    **dict.fromkeys(("precision", "parity"), dict),
    "workspace": int,
}


def shapes(contract: Contract, profile: Profile) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Smallest, best and largest shape of each input of the network."""
    side = profile.side or contract.input_size
    wanted: dict[str, tuple[tuple[int, ...], ...]] = {"image": tuple((n, 3, side, side) for n in profile.batch)}
    if profile.grid is not None:
        wanted["head_grid"] = ((1, 1, profile.grid, profile.grid),) * 3
    return wanted


def manifest_path(engine: Path) -> Path:
    """Where an engine's manifest lies: `model.engine.json` for `model.engine`."""
    return engine.with_name(engine.name + ".json")


def read_manifest(engine: Path) -> Manifest:
    """The manifest beside an engine; InputError if there is none or it is broken."""
    path = manifest_path(engine)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{engine}: has no manifest {path.name} beside it, and an engine is code: only those with a manifest "
            f"of their own are loaded; {REBUILD}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    return Manifest.from_json(text, str(path))


def write_manifest(engine: Path, manifest: Manifest) -> None:
    """Replace the manifest beside an engine, whole or not at all; RunError if the disk refuses."""
    write_whole(manifest_path(engine), manifest.to_json().encode())


def _checked(name: str, value: Any, where: str) -> Any:
    """The value of one field in its Python type, or InputError."""
    if name == "workspace" and value is None:
        return None
    kind: Any = _KINDS[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: its field `{name}` is {value!r}; {REBUILD}")
    if name == "flavor" and value not in MODULES:
        raise InputError(f"{where}: flavor {value!r}, expected one of {', '.join(MODULES)}; {REBUILD}")
    if name in ("compute_capabilities", "flags"):
        return tuple(str(entry) for entry in value)
    if name == "profiles":
        return tuple(_profile(entry, where) for entry in value)
    if name == "parity" and value.get("status") not in (UNCHECKED, PASSED, KEPT_ANYWAY):
        raise InputError(f"{where}: its field `parity` has the status {value.get('status')!r}; {REBUILD}")
    return value


def _profile(entry: Any, where: str) -> Profile:
    batch, *sides = map(entry.get, ("batch", "grid", "side")) if isinstance(entry, dict) else (None, None, None)
    whole = isinstance(batch, list) and len(batch) == 3 and all(isinstance(n, int) and n > 0 for n in batch)
    if batch is None or not whole or not all(side is None or isinstance(side, int) for side in sides):
        raise InputError(f"{where}: a profile is {entry!r}; {REBUILD}")
    return Profile(tuple(batch), *sides)
