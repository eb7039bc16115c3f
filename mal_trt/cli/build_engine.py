"""The options of `mal-trt build-engine`. The work itself is in `mal_trt.engines`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Context, Option

from mal_trt.base.errors import InputError
from mal_trt.cli.options import (
    JsonOption,
    ManyImagesOption,
    QuietOption,
    SpecOption,
    Weights,
    model_of_spec,
    needs,
    paired,
    tell_of_checkpoints,
)
from mal_trt.cli.output import messages, tell
from mal_trt.cli.spec_arguments import ModelArguments, out_file, read_arguments

if TYPE_CHECKING:
    from mal_trt.engines import EngineOptions, EngineReport
    from mal_trt.engines.job import Job
    from mal_trt.engines.sparsity import Sparse
    from mal_trt.formats.boxes import Source
    from mal_trt.training.spec_use import SpecUse

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def build_engine(
    context: Context,
    arguments: ModelArguments = None,
    spec: SpecOption = None,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "-o",
            help="The engine to write. Its manifest gets the same name with .json behind it. With --spec: its "
            "trt_engine, or in the folder build-engine of its results_dir.",
        ),
    ] = None,
    flavor: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx"],
        Option(
            help="Which library builds it. auto: tensorrt where there is a GPU, otherwise tensorrt-rtx, which needs "
            "none."
        ),
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "int8", "fp8"] | None,
        Option(help="Convert an FP32 model to this first. Default: the precision the model has."),
    ] = None,
    images: ManyImagesOption = None,
    boxes: Annotated[
        list[str] | None,
        Option(
            metavar="<path|url>",
            help="Boxes to calibrate on, for --precision int8, fp8 or fp16; in any format that is read. May be "
            "repeated.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        Option(
            metavar="<least,best,most>",
            help="Batch sizes: the least, the best and the most, or the most alone. Default: 1,16,32, or less if "
            "memory is short.",
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        Option(
            metavar="<size>", help="Scratch memory that TensorRT may use, such as 2GiB. Default: half of what is free."
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        Option(
            help="A file that makes the next build faster. Default: one for each GPU and version, in the user's cache."
        ),
    ] = None,
    opt_level: Annotated[
        int, Option(min=0, max=5, help="How hard TensorRT tries: 0 builds fastest, 5 makes the fastest engine.")
    ] = 3,
    low_memory: Annotated[
        bool,
        Option(
            "--low-memory",
            help="Build with little memory: profiles one at a time, 256 MiB of scratch memory unless --workspace says "
            "more, --opt-level 2 at most. Says beforehand whether there is enough.",
        ),
    ] = False,
    compute_capability: Annotated[
        str | None,
        Option(
            metavar="<number,...>",
            help="Compute capabilities to build for, such as 8.6,8.9 (tensorrt-rtx only). Default: all from 8.0 on.",
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        Option(
            "--version-compatible",
            help="Let later versions of TensorRT run it. For Triton and trtexec: mal-trt does not open such engines.",
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool, Option("--hardware-compatible", help="Let it run on every GPU from Ampere on. It is slower.")
    ] = False,
    strip_weights: Annotated[
        bool,
        Option(
            "--strip-weights", help="Leave the weights out. They are then read from the .onnx file beside the engine."
        ),
    ] = False,
    sparse: Annotated[
        bool,
        Option("--sparse", help="Use the 2:4 zeros of a pruned model where that is faster. See `mal-trt prune`."),
    ] = False,
    weights: Annotated[Weights, Option(help="Which network of a checkpoint to use.")] = "student",
    keep_anyway: Annotated[
        bool, Option("--keep-anyway", help="Keep the engine even if its masks are not those of the FP32 model.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be built, and write nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine."""
    given, use = read_arguments(arguments, spec, "build-engine")
    model = Path(given)
    out = out_file(out, use, given, ".engine", context if dry_run else None)
    if (images or boxes) and precision in (None, "fp32"):
        raise InputError("--images and --boxes: used for --precision int8, fp8 or fp16 alone; give one of these")
    sources = paired(images, boxes)
    from mal_trt.artifacts.checkpoints import Choice
    from mal_trt.engines import EngineOptions
    from mal_trt.engines import build_engine as run
    from mal_trt.engines.from_checkpoint import exported_path, is_checkpoint
    from mal_trt.engines.job import check_output
    from mal_trt.engines.trial import opener

    options = EngineOptions(
        flavor=flavor,
        precision=precision,
        sources=sources or _calibrate_on(use, precision),
        batch=_batch(batch),
        workspace=_bytes(workspace),
        timing_cache=timing_cache,
        opt_level=opt_level,
        compute_capabilities=_capabilities(compute_capability),
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        strip_weights=strip_weights,
        sparse=sparse,
        low_memory=low_memory,
    )
    say = messages(quiet)
    checkpoint = is_checkpoint(model)
    if checkpoint and dry_run:
        onnx = exported_path(out)
        line = f"would export {model} to {onnx} first; --dry-run says more of an exported model"
        tell(lambda: {"writes": [onnx, out, f"{out}.json"], "exports": model}, lambda: typer.echo(line), quiet)
        return
    if dry_run:
        _plan(model, out, options, quiet)
        return
    tell_of_checkpoints(quiet)
    choice = Choice(weights)
    if checkpoint and use is not None:
        check_output(out, model)
        model_of_spec(use, given, weights)  # which checks that it is the architecture that the spec names
        choice = replace(use.choice, weights=weights)
    with needs("calibrate"):
        report = run(
            model,
            out,
            options,
            choice=choice,
            open_plan=opener(say),
            keep_anyway=keep_anyway,
            say=say,
            progress=not quiet,
        )
    tell(lambda: _document(report), lambda: _print_report(report), quiet)


def _calibrate_on(use: SpecUse | None, precision: str | None) -> tuple[Source, ...]:
    """What a spec says to calibrate on, for INT8 and FP8."""
    if use is None or precision not in ("int8", "fp8"):
        return ()
    from mal_trt.formats.boxes import Boxes

    how = use.boxes_format, use.split, use.rescale
    return tuple((images, Boxes(boxes, *how)) for boxes, images in use.sources())


def _plan(model: Path, out: Path, options: EngineOptions, quiet: bool) -> None:
    """What --dry-run says."""
    from mal_trt.base.memory import read_memory
    from mal_trt.engines.build import inspect_network
    from mal_trt.engines.job import prepare
    from mal_trt.engines.low_memory import advice
    from mal_trt.engines.precision import check_precision, typed_path

    job = prepare(model, out, options)
    wanted = options.precision or job.contract.precision
    check_precision(model, job.contract, wanted, options.sources)
    typed = typed_path(out, wanted) if wanted != job.contract.precision else None
    layers = inspect_network(job) if typed is None else None
    cache = job.timing_cache
    free = job.gpu.free_bytes if job.gpu is not None else None
    memory = list(advice(job, read_memory())) if job.low_memory else []

    def show() -> None:
        typer.echo(f"would write {out} and {out.name}.json with {job.flavor.title}")
        _print_job(job)
        if layers is None:
            typer.echo(f"  precision: {wanted}, in {typed}, which would be made first")
        else:
            _print_precision(layers)
        if free is not None:
            typer.echo(f"  free memory of the GPU: {free / (1 << 20):.0f} MiB")
        if cache is not None:
            typer.echo(f"  timing cache: {cache} ({'there, which saves time' if cache.exists() else 'none yet'})")
        for line in memory:
            typer.echo(f"  {line}")
        typer.echo("  how long it takes shows only when it is built")

    document = {
        "writes": [out, f"{out}.json", *([typed] if typed is not None else [])],
        "flavor": job.flavor.name,
        "version": job.flavor.version,
        "precision": wanted,
        "layers": layers,
        "compute_capabilities": job.runs_on,
        "profiles": job.profiles,
        "workspace": job.workspace,
        "free_memory_bytes": free,
        "timing_cache": cache,
        "timing_cache_there": cache is not None and cache.exists(),
        "flags": job.flags,
        "notes": (*job.notes, *memory),
        "seconds": None,
    }
    tell(lambda: document, show, quiet)


def _document(report: EngineReport) -> dict[str, Any]:
    built = report.built
    return {
        "path": report.path,
        "precision": report.precision,
        "seconds": built.seconds,
        "timing_cache_used": built.cached,
        "warnings": built.warnings,
        "notes": report.job.notes,
        "sparse": built.sparse,
        "manifest": built.manifest,
    }


def _print_report(report: EngineReport) -> None:
    built, manifest = report.built, report.built.manifest
    typer.echo(
        f"{report.path}: {manifest.plan_bytes / 1e6:.1f} MB, {report.precision}, built by {report.job.flavor.title} "
        f"in {built.seconds:.1f} s" + (" with a timing cache" if built.cached else "")
    )
    _print_job(report.job)
    _print_precision(manifest.precision)
    if built.sparse is not None:
        typer.echo(f"  sparse: {_sparse(built.sparse)}")
    for warning in built.warnings:
        typer.echo(f"  note: {warning}")
    if report.verdict is None:
        reason = manifest.parity.get("reason", "which the first opening on a GPU makes up for")
        typer.echo(f"  accuracy: unchecked, {reason}")
    else:
        kept = "" if report.verdict.passed else "; kept all the same (--keep-anyway)"
        typer.echo(f"  accuracy: {report.verdict.describe()}{kept}")


def _sparse(sparse: Sparse) -> str:
    """The layers with sparse kernels, as far as TensorRT says."""
    if sparse.chosen is None:
        return "this TensorRT does not say which layers have sparse kernels"
    names = ", ".join(name for name in sparse.chosen if name) or "none named"
    of = "" if sparse.eligible is None else f" of {len(sparse.eligible)} that could have"
    return f"{len(sparse.chosen)} layers have sparse kernels{of} ({names})"


def _print_job(job: Job) -> None:
    typer.echo(f"  runs on: compute capability {', '.join(job.runs_on)}")
    for profile in job.profiles:
        grid = "" if profile.grid is None else f", mask-head grid {profile.grid}"
        side = "" if profile.side is None else f", crops of {profile.side} pixels"
        typer.echo("  profile: batch {} to {}, best {}{}{}".format(*(profile.batch[i] for i in (0, 2, 1)), side, grid))
    if job.workspace is not None:
        typer.echo(f"  workspace: {job.workspace / (1 << 20):.0f} MiB")
    if job.flags:
        typer.echo(f"  flags: {', '.join(job.flags)}")
    for note in job.notes:
        typer.echo(f"  note: {note}")


def _print_precision(precision: dict[str, dict[str, int]]) -> None:
    kinds = (f"{kind} {' '.join(f'{n} {t}' for t, n in types.items())}" for kind, types in precision.items())
    typer.echo(f"  layers: {', '.join(kinds)}")


def _batch(text: str | None) -> tuple[int, int, int] | None:
    """`32` or `1,16,32`."""
    if text is None:
        return None
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if len(numbers) == 1:
        numbers = [1, *numbers, *numbers]
    if len(numbers) != 3 or not 0 < numbers[0] <= numbers[1] <= numbers[2]:
        raise InputError(f"--batch {text}: expected the largest batch, or least,best,most, such as 1,16,32")
    return numbers[0], numbers[1], numbers[2]


def _bytes(text: str | None) -> int | None:
    """`2GiB`, `512M` or a number of bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if found is None or not float(found[1]):
        raise InputError(f"--workspace {text}: expected a size such as 2GiB or 512MiB")
    return int(float(found[1]) * UNITS[found[2]])


def _capabilities(text: str | None) -> tuple[str, ...]:
    """`8.6,8.9`."""
    parts = tuple(part.strip() for part in text.split(",")) if text is not None else ()
    for part in parts:
        if not re.fullmatch(r"\d+\.\d", part):
            raise InputError(f"--compute-capability {text}: expected numbers such as 8.6,8.9")
    return tuple(sorted(set(parts), key=float))
