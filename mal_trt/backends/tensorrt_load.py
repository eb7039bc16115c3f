"""From the bytes of a plan to an engine on the GPU, by TensorRT or TensorRT-RTX, and what their log says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mal_trt.artifacts.flavor import Flavor, Messages
from mal_trt.artifacts.manifest import Manifest
from mal_trt.artifacts.models import BUNDLED, resolve_model
from mal_trt.artifacts.trtmessages import explain, known
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError


@dataclass
class Loaded:
    """An engine and what must live as long as it does. name: its file, for errors."""

    name: str
    flavor: Flavor
    engine: Any
    runtime: Any
    logger: Any
    messages: Messages = field(default_factory=Messages)

    def close(self) -> None:
        """Let go of the engine, whoever else holds this object."""
        self.engine = None
        self.runtime = None

    def reason(self) -> str:
        """What the library logged since the last call, as one sentence."""
        errors, self.messages.all[:] = self.messages.errors, []
        return explain(errors)

    def warnings(self) -> list[str]:
        """What the library logged so far, as far as there are plain sentences for it, each once."""
        return list(dict.fromkeys(sentence for _, text in self.messages.all if (sentence := known(text))))

    def failed(self, what: str) -> RunError:
        """The error to raise after a call that gave None or False."""
        return RunError(f"{self.name}: {self.flavor.title} {what}: {self.reason()}")


def load_plan(name: str, plan: bytes, manifest: Manifest, flavor: Flavor, onnx: Path | None = None) -> Loaded:
    """Deserialise a plan on the current device. onnx: the file it was built of, for an engine without weights.

    Only for plans of `load_engine`, with a driver at hand: without one the library crashes.
    """
    if "VERSION_COMPATIBLE" in manifest.flags:
        raise InputError(
            f"{name}: was built with --version-compatible and so holds a TensorRT of its own, which is not run here; "
            "build it without that option (Triton and trtexec run it as it is)"
        )
    messages = Messages()
    logger = flavor.logger(messages)
    try:
        runtime = flavor.module.Runtime(logger)
    except (TypeError, RuntimeError) as error:  # what the bindings make of a null pointer
        raise RunError(f"{flavor.title} does not start: {explain(messages.errors or [str(error)])}") from None
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(f"{name}: {flavor.title} cannot load it: {explain(messages.errors)}")
    loaded = Loaded(name, flavor, engine, runtime, logger, messages)
    if "STRIP_PLAN" in manifest.flags:
        _refit(loaded, onnx or _source(name, manifest))
    return loaded


def _source(name: str, manifest: Manifest) -> Path:
    """The ONNX file an engine without weights was built of; InputError if it is not there or not the same."""
    beside = Path(name).parent / manifest.onnx
    path = beside if beside.is_file() else resolve_model(BUNDLED)
    if file_sha256(path) != manifest.onnx_sha256:
        raise InputError(
            f"{name}: holds no weights (--strip-weights); put {manifest.onnx}, the file it was built of, beside it"
        )
    return path


def _refit(loaded: Loaded, onnx: Path) -> None:
    trt, title = loaded.flavor.module, loaded.flavor.title
    refitter = trt.Refitter(loaded.engine, loaded.logger)
    parser = trt.OnnxParserRefitter(refitter, loaded.logger)
    if not parser.refit_from_file(str(onnx)):
        found = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise InputError(f"{loaded.name}: {title} cannot take its weights from {onnx}: {explain(found)}")
    if not refitter.refit_cuda_engine():
        raise loaded.failed(f"does not take the weights of {onnx}")
