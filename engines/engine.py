"""From a model to an engine that is kept: typed ONNX, build, accuracy check, and the next precision where it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.artifacts.parity import Verdict, reference_path
from mal_trt.base.errors import RunError
from mal_trt.base.memory import read_memory
from mal_trt.base.progress import Progress
from mal_trt.engines.build import Built, build, write
from mal_trt.engines.job import EngineOptions, Job, prepare
from mal_trt.engines.low_memory import advice, one_at_a_time
from mal_trt.engines.precision import LADDER, check_precision, typed_model
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
    open_plan: Open | None = None,
    keep_anyway: bool = False,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> EngineReport:
    """Build an engine and write it with its manifest.

    - `model`: an FP32 or typed model of `mal-trt export`, or "bundled". `out`: the engine; its manifest is `out`.json.
    - `options`: see `EngineOptions`.
    - `open_plan`: how to run an engine here, for the accuracy check. Without it the manifest says "unchecked".
    - `keep_anyway`: keep an engine that fails its check. Otherwise the next precision is tried.
    - `say`: told what is done. `progress`: show a bar.

    RunError if no precision passes: nothing is written.
    """
    options, out = options or EngineOptions(), Path(out)
    source = resolve_model(model)
    contract = read_contract(source)
    wanted = options.precision or contract.precision
    check_precision(model, contract, wanted, options.sources)
    prepare(model, out, options)  # what cannot be built should fail before minutes of calibration
    reference = reference_path(source)
    # A model that was given typed has no FP32 model to make another precision of.
    steps = (wanted, *(LADDER[wanted] if contract.precision == "fp32" else ()))
    refused = ""
    for precision in steps:
        onnx = typed_model(model, precision, out, options.sources, say, progress)
        job = prepare(model, out, options, onnx)
        say(f"building {precision} with {job.flavor.title}")
        for line in advice(job, read_memory()) if job.low_memory else ():
            say(line)
        for part in one_at_a_time(job):
            say(f"measuring batch {part.profiles[0].batch[2]}, mask-head grid {part.profiles[0].grid} alone")
            _build(part, progress)
        built = _build(job, progress)
        verdict = None
        if open_plan is not None and runs_here(job):
            built, verdict = run_beside(partial(try_out, open_plan, built, job, reference))
        if verdict is None and keep_anyway:
            parity = {**built.manifest.parity, "keep_anyway": True}
            built = replace(built, manifest=replace(built.manifest, parity=parity))
        if verdict is None or verdict.passed or keep_anyway:
            write(built, out, reference)
            return EngineReport(out, job, built, precision, verdict)
        refused = f"{precision}: {verdict.describe()}"
        say(f"refused, {refused}")
    raise RunError(
        f"{out}: no engine kept, the GPU's masks are not those of the FP32 model (last tried {refused}); "
        "--keep-anyway writes the engine all the same"
    )


def _build(job: Job, progress: bool) -> Built:
    done = 0
    with Progress("building", 100, unit="%", show=progress) as bar:

        def show(share: float) -> None:
            nonlocal done
            if (percent := int(share * 100)) > done:
                bar.advance(percent - done)
                done = percent

        return build(job, show)
