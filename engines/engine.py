"""From a model to an engine that is kept: typed ONNX, build, accuracy check, and the next precision where it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mal_trt.artifacts.checkpoints import Choice
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.artifacts.parity import Verdict
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import RunError
from mal_trt.base.memory import read_memory
from mal_trt.base.progress import Progress
from mal_trt.engines.build import Built, build, write
from mal_trt.engines.from_checkpoint import checked_model
from mal_trt.engines.job import EngineOptions, Job, prepare
from mal_trt.engines.low_memory import advice, one_at_a_time
from mal_trt.engines.precision import LADDER, typed_model
from mal_trt.engines.trial import Open, runs_here, try_out
from mal_trt.engines.worker import run_beside


@dataclass(frozen=True)
class EngineReport:
    """What was kept. precision: as built, which is not the one asked for where that failed its check."""

    path: Path
    job: Job
    built: Built
    precision: str
    verdict: Verdict | None


def build_engine(
    model: str | Path,
    out: str | Path,
    options: EngineOptions | None = None,
    *,
    choice: Choice | None = None,
    open_plan: Open | None = None,
    keep_anyway: bool = False,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = True,
) -> EngineReport:
    """Build an engine and write it with its manifest.

    - `model`: an FP32 or typed model of `mal-trt export`, "bundled", or a checkpoint, whose exported model stays beside
      the engine, as `out`.onnx. `out`: the engine; its manifest is `out`.json.
    - `options`: see `EngineOptions`. `choice`: how a checkpoint is exported, see `artifacts.checkpoints`.
    - `open_plan`: how to run an engine here, for the accuracy check. Without it the manifest says "unchecked".
    - `keep_anyway`: keep an engine that fails its check. Otherwise the next precision is tried.
    - `say`: called with a line on each step. `progress`: show bars on standard error.

    InputError for what cannot be used, RunError if TensorRT builds nothing or no precision passes; then nothing is
    written.
    """
    options, out = options or EngineOptions(), Path(out)
    with checked_model(model, out, options, choice) as model:
        source = resolve_model(model)
        precision = read_contract(source).precision
        wanted = options.precision or precision
        # A model that was given typed has no FP32 model to make another precision of.
        steps = (wanted, *(LADDER[wanted] if precision == "fp32" else ()))
        refused = ""
        for step in steps:
            job = prepare(model, out, options, typed_model(model, step, out, options.sources, say, progress))
            built, verdict = _tried(job, step, parity_path(source), open_plan, say, progress)
            if verdict is None and keep_anyway:
                parity = {**built.manifest.parity, "keep_anyway": True}
                built = replace(built, manifest=replace(built.manifest, parity=parity))
            if verdict is None or verdict.passed or keep_anyway:
                write(built, out, parity_path(source))
                return EngineReport(out, job, built, step, verdict)
            refused = f"{step}: {verdict.describe()}"
            say(f"refused, {refused}")
        raise RunError(
            f"{out}: no engine kept, the GPU's masks are not those of the FP32 model (last tried {refused}); "
            "--keep-anyway writes the engine all the same"
        )


def _tried(
    job: Job, precision: str, parity: Path, open_plan: Open | None, say: Callable[[str], None], progress: bool
) -> tuple[Built, Verdict | None]:
    """An engine, and how it does on its model's parity crops where it can run here."""
    say(f"building {precision} with {job.flavor.title}")
    for line in advice(job, read_memory()) if job.low_memory else ():
        say(line)
    for part in one_at_a_time(job):
        say(f"measuring batch {part.profiles[0].batch[2]}, mask-head grid {part.profiles[0].grid} alone")
        _build(part, progress)
    built = _build(job, progress)
    if open_plan is None or not runs_here(job):
        return built, None
    return run_beside(partial(try_out, open_plan, built, job, parity))


def _build(job: Job, progress: bool) -> Built:
    done = 0
    with Progress("building", 100, unit="%", show=progress) as bar:

        def show(share: float) -> None:
            nonlocal done
            if (percent := int(share * 100)) > done:
                bar.advance(percent - done)
                done = percent

        return build(job, show)
