"""`mal-trt benchmark`: how fast models are, in the network alone and from files to masks, and how good beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path

from mal_trt.backends.choice import AUTO, one_each
from mal_trt.base.errors import InputError
from mal_trt.base.files import NOTHING, REGULAR, file_kind
from mal_trt.base.outputs import check_apart, check_file
from mal_trt.base.progress import Progress
from mal_trt.base.version import __version__
from mal_trt.formats.boxes import Boxes, BoxesLike
from mal_trt.formats.images import open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.predictor import Threshold
from mal_trt.measure.benchmark_data import choose_samples, plan_samples
from mal_trt.measure.benchmark_report import MIX, write_report
from mal_trt.measure.benchmark_run import Runner
from mal_trt.measure.benchmark_subject import Document
from mal_trt.measure.hardware import hardware
from mal_trt.measure.power_meter import open_meter
from mal_trt.measure.timing import Budget

SIZES = (*(size.name.lower() for size in SizeClass), MIX)


def benchmark(
    models: Sequence[str | Path],
    images: str | Path | None = None,
    boxes: BoxesLike | None = None,
    annotations: BoxesLike | None = None,
    *,
    batches: Sequence[int] = (1, 8, 16, 32),
    size: str = MIX,
    warm_up: int = 10,
    runs: int | None = None,
    seconds: float = 2.0,
    rounds: int = 3,
    end_to_end: bool = True,
    label_batch: int | None = None,
    count: int | None = None,
    device: str = "auto",
    backend: str | Sequence[str] = AUTO,
    crops: str = "auto",
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
    csv_out: str | Path | None = None,
    plot_out: str | Path | None = None,
    command: str = "",
    told: Callable[[Document], None] = lambda result: None,
) -> Document:
    """Measure how fast models are, and how good: the dict that `mal-trt benchmark --json-out` writes.

    - `models`: model files, checkpoints or "bundled". Masks are compared with those of the first.
    - `images`, and `boxes` or `annotations` (with drawn masks): what to label. None: the example photos, 16 times over.
      `count`: only this many boxes, spread evenly; None: all.
    - `batches`: batch sizes at which the network alone is measured. `size`: of the boxes there: "small", "medium",
      "large", or "mix", as many of each as there are among the boxes.
    - `warm_up`: runs before the timed ones. `runs`: timed runs of each batch size, or `seconds` for them, in each
      round. `rounds`: how many times everything is measured in turn, since a machine's speed drifts.
    - `end_to_end`: also label from files to masks, which gives the quality too. `label_batch`: its batch size, `batch`
      of `label`.
    - `backend`: as for `label`, for all models, or one for each ("onnxruntime,openvino"), which measures backends where
      a model is given twice.
    - `device`, `crops`, `threshold`, `flip`, `refine`, `weights`, `threads`: as for `label`. `progress`: show a bar.
    - `json_out`, `csv_out`: written after every figure, so an interrupted run leaves what it has. `plot_out`: .png or
      .svg, drawn at the end. `command`: kept in the result. `told`: called with the result so far after every figure.

    The dict has `machine`, `data` and `models`. Each model has `network`, a row
    for each batch with latencies in ms and boxes_per_s; `label` with boxes_per_s and pictures_per_s; and `quality`.
    Where tegrastats or nvidia-smi says the power, rows have watts and boxes_per_joule, and `machine` power_meter.
    What fails while it is measured has `error` instead of figures, and the rest goes on.

    InputError if a file, an option or a model cannot be used. NothingDone if no box can be used. RunError if a model
    cannot be run at all, or if a result cannot be written.
    """
    _check(models, batches, size, rounds, warm_up, runs, seconds)
    _check_files(json_out, csv_out, plot_out)
    given = (one.path if isinstance(one, Boxes) else one for one in (boxes, annotations))
    check_apart((json_out, csv_out, plot_out), (images, *given, *models))
    backends = one_each(backend, len(models))
    if plot_out is not None and not (end_to_end and (annotations is not None or len(models) > 1)):
        raise InputError(
            "--plot sets speed against quality: give --annotations or a second model, and label end to end"
        )
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as name, open_meter(device) or nullcontext() as meter:
        folder = Path(name)
        samples = choose_samples(images, boxes, annotations, count, folder)
        source = open_images(samples.images)
        plan = plan_samples(samples, source, folder)
        shares = plan.shares if size == MIX else {SizeClass[size.upper()]: 1.0}
        label_options: Document = {
            **{"batch": label_batch, "device": device, "crops": crops, "threads": threads},
            **{"threshold": threshold, "flip": flip, "refine": refine, "weights": weights},
        }
        runner = Runner(samples, plan, source, folder, shares, Budget(warm_up, runs, seconds), label_options, meter)
        subjects = [runner.subject(model, one, batches) for model, one in zip(models, backends, strict=True)]
        result: Document = {
            "mal_trt": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "complete": False,
            "machine": hardware() | ({"power_meter": meter.title} if meter is not None else {}),
            "data": {
                "name": samples.name,
                "pictures": plan.pictures,
                "boxes": plan.boxes,
                "size_shares": {size.name.lower(): round(share, 4) for size, share in plan.shares.items()},
            },
            "options": {
                **{"size": size, "warm_up": warm_up, "runs": runs, "seconds": seconds, "rounds": rounds},
                "label": label_options,
            },
            "models": [],
        }

        def save(plot: bool = False) -> None:
            result["models"] = [subject.summary() for subject in subjects]
            told(result)
            write_report(result, json_out, csv_out, plot_out if plot else None)

        steps = rounds * len(subjects) * (len(batches) + end_to_end)
        with Progress("benchmarking", steps, unit="figures", show=progress) as bar:
            for _ in range(rounds):
                for subject in subjects:
                    for _ in runner.network(subject):
                        bar.advance(1)
                        save()
                    if end_to_end:
                        runner.label(subject, subjects[0])
                        bar.advance(1)
                        save()
        result["complete"] = True
        save(plot=True)
    return result


def _check(
    models: Sequence[str | Path],
    batches: Sequence[int],
    size: str,
    rounds: int,
    warm_up: int,
    runs: int | None,
    seconds: float,
) -> None:
    if not models:
        raise InputError("no model to measure; give --model FILE, or --model bundled")
    if size not in SIZES:
        raise InputError(f"size {size!r}: expected one of {', '.join(SIZES)}")
    if not batches:
        raise InputError("no batch size to measure; give --batch 1,8,16")
    numbers = (*(("batch", n) for n in batches), ("rounds", rounds), ("runs", 1 if runs is None else runs))
    for name, value in numbers:
        if value < 1:
            raise InputError(f"{name} {value}: expected 1 or more")
    if warm_up < 0 or seconds < 0:
        raise InputError(f"warm-up {warm_up}, seconds {seconds:g}: expected 0 or more")


def _check_files(json_out: str | Path | None, csv_out: str | Path | None, plot_out: str | Path | None) -> None:
    given = [path for path in (json_out, csv_out, plot_out) if path is not None]
    for place, path in enumerate(given):
        check_file(path)
        kept = file_kind(path) in (NOTHING, REGULAR)  # and not /dev/stdout, where all may go
        if kept and any(Path(path).resolve() == Path(other).resolve() for other in given[:place]):
            raise InputError(f"{path}: two of the results would go there; give each a name of its own")
    if plot_out is not None and Path(plot_out).suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{plot_out}: a plot is a .png or an .svg file")
