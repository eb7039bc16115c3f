"""How speed and memory grow with the number of boxes, the size of pictures, threads and processes; and a plot of it.

    python benchmarks/scaling.py [--images DIR|TAR --boxes COCO.json] [--axes boxes pictures threads workers]
        [--largest 1000000] [--stop-after SECONDS] [--fresh] [--json FILE] [--plot FILE.svg] [--write PAPER]

- boxes: `label` on 1,000 and 10,000 boxes, jittered copies of those given. More than a processor labels in minutes, up
  to a million, without a network: what is left when the driver of a GPU does nothing, see `host_side.py`. That is also
  measured for the smaller numbers.
- pictures: enlarged to .3 to 100 megapixels, with one large box each (`large_photos.py`), decoded exactly and scaled.
- threads: one process with 1 to 2 threads. workers: 1 to 4 processes with a thread each, as `--device cpu,cpu` makes.

Without data: the example photos. Each cell is measured in a process of its own and kept at once: the same command
again goes on where it was stopped. boxes/s are those of labelling, without opening the model.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import Cells, figure, line, peak_mb, write_between

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.processor import usable_cores
from mal_trt.measure.hardware import hardware, one_line

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
REAL = (1_000, 10_000)
HOLLOW = (1_000, 10_000, 100_000, 1_000_000)
MEGAPIXELS = (0.3, 1.0, 3.0, 12.0, 24.0, 48.0, 100.0)
THREADS, WORKERS = (1, 2), (1, 2, 3, 4)
AXES = ("boxes", "pictures", "threads", "workers")
PIXELS = 100.0  # megapixels of a cell, in 2 to 24 pictures
SOME = 2_000  # boxes for threads and workers
BATCH = 64  # of the driver that does nothing


def label_cell(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`label` on so many boxes, with so many threads or processes."""
    boxes = folder / "boxes.json"
    _apart(_jitter, arguments.boxes, arguments.count, boxes)
    device = ",".join(["cpu"] * arguments.workers)
    found = _label(arguments, arguments.images, boxes, folder / "labels.json", device, "cpu")
    if arguments.workers > 1:
        del found["peak_mb"]  # this process only hands out the work
    return found


def hollow_cell(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same without network and pictures."""
    from host_side import Decoded, NoNetwork

    from mal_trt.labelling.gpu_masker import GpuMasker
    from mal_trt.labelling.journal import Journal
    from mal_trt.labelling.pipeline import run_plan
    from mal_trt.labelling.plan import write_plan
    from mal_trt.labelling.predictor import Predictor

    boxes = folder / "boxes.json"
    _apart(_repeat, arguments.boxes, arguments.count, boxes)
    largest = int((folder / "largest").read_text())
    network: Any = NoNetwork(BATCH)
    predictor = Predictor(network)
    source, masker, journal = Decoded(largest, True), GpuMasker(predictor), Journal(folder / "journal")
    began = time.perf_counter()
    write_plan(journal, {}, boxes, None, source, BATCH)
    planned = time.perf_counter()
    run_plan(journal, source, predictor, masker, BATCH, arguments.threads)
    ended = time.perf_counter()
    labelled, _ = journal.count()
    journal.close()
    return {
        "boxes": labelled,
        "boxes_per_s": round(labelled / (ended - planned), 1),
        "plan_s": round(planned - began, 2),
        "peak_mb": round(peak_mb()),
    }


def picture_cell(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`label` on large pictures, decoded exactly and scaled; scaled first, for it takes less memory."""
    count = max(2, min(24, round(PIXELS / arguments.megapixels)))
    _apart(_enlarge, arguments.images, arguments.boxes, count, 1e6 * arguments.megapixels, folder)
    found: dict[str, Any] = {"pictures": count}
    for name, decode in (("scaled", "scaled"), ("exact", "cpu")):
        out = folder / f"labels-{name}.json"
        cell = _label(arguments, folder, folder / "boxes.json", out, "cpu", decode)
        found |= {f"{name}_boxes_per_s": cell["boxes_per_s"], f"{name}_peak_mb": cell["peak_mb"]}
        found |= {"pictures": cell["boxes"], "provider": cell["provider"]}
    return found


def _label(
    arguments: argparse.Namespace, images: Path, boxes: Path, out: Path, device: str, decode: str
) -> dict[str, Any]:
    from mal_trt.labelling.run import label

    summary = label(
        images,
        boxes,
        arguments.model,
        out,
        device=device,
        decode=decode,
        threads=arguments.threads,
        progress=False,
    )
    return {
        "boxes": summary.labelled,
        "boxes_per_s": round(summary.labelled / summary.seconds, 2),
        "peak_mb": round(peak_mb()),
        "provider": summary.provider,
    }


def _apart(work: Callable[..., None], *values: Any) -> None:
    """Do it in another process, whose memory is not counted."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=values)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")


def _jitter(boxes: Path, count: int, out: Path) -> None:
    from memory import jittered

    out.write_text(json.dumps(jittered(boxes, count)))


def _repeat(boxes: Path, count: int, out: Path) -> None:
    from host_side import repeated

    (out.parent / "largest").write_text(str(repeated(boxes, count, out)))


def _enlarge(images: Path, boxes: Path, count: int, pixels: float, folder: Path) -> None:
    from large_photos import enlarge

    enlarge(images, boxes, count, pixels, folder)


KINDS = {"label": label_cell, "hollow": hollow_cell, "picture": picture_cell}


def cells_of(axes: list[str], largest: int, cores: int) -> dict[str, list[str]]:
    """The cells of some axes by name, and the options that make them, the quick ones first."""
    found: dict[str, list[str]] = {}
    if "threads" in axes:
        found |= {f"threads {n}": ["label", "--count", str(SOME), "--threads", str(n)] for n in THREADS}
    if "workers" in axes:
        for n in WORKERS:
            found[f"workers {n}"] = ["label", "--count", str(SOME), "--threads", str(n), "--workers", str(n)]
    if "pictures" in axes:
        found |= {f"pictures {n:g}": ["picture", "--megapixels", str(n), "--threads", str(cores)] for n in MEGAPIXELS}
    if "boxes" in axes:
        for kind, counts in (("label", REAL), ("hollow", HOLLOW)):
            for n in counts:
                if n <= largest:
                    found[f"boxes {kind} {n}"] = [kind, "--count", str(n), "--threads", str(cores)]
    return found


def table(found: dict[str, Any]) -> str:
    """The measurement in Markdown: a table for each axis that has cells."""
    cells = found["cells"]

    def value(name: str, key: str, unit: str = "") -> str:
        return figure(cells[name][key]) + unit if name in cells and key in cells[name] else ""

    def rows(head: list[str], keys: list[str], make: Callable[[str], list[str]]) -> list[str]:
        found = [line([key, *made]) for key in keys if any(made := make(key))]
        return [line(head), line(["---"] * len(head)), *found, ""] if found else []

    lines = rows(
        ["boxes", "boxes/s", "peak memory", "without network and pictures", "planned in", "peak memory"],
        [f"{n:,}" for n in HOLLOW],
        lambda key: [
            value(f"boxes label {key.replace(',', '')}", "boxes_per_s"),
            value(f"boxes label {key.replace(',', '')}", "peak_mb", " MB"),
            value(f"boxes hollow {key.replace(',', '')}", "boxes_per_s", " boxes/s"),
            value(f"boxes hollow {key.replace(',', '')}", "plan_s", " s"),
            value(f"boxes hollow {key.replace(',', '')}", "peak_mb", " MB"),
        ],
    )
    pictures = [
        *(("exact_boxes_per_s", ""), ("exact_peak_mb", " MB")),
        *(("scaled_boxes_per_s", ""), ("scaled_peak_mb", " MB")),
    ]
    lines += rows(
        ["megapixels", "boxes/s", "peak memory", "with `--decode scaled`", "peak memory"],
        [f"{n:g}" for n in MEGAPIXELS],
        lambda key: [value(f"pictures {key}", name, unit) for name, unit in pictures],
    )
    lines += rows(
        ["", "threads of one process: boxes/s", "processes of one thread: boxes/s"],
        [str(n) for n in WORKERS],
        lambda key: [value(f"threads {key}", "boxes_per_s"), value(f"workers {key}", "boxes_per_s")],
    )
    providers = sorted({cell["provider"] for cell in cells.values() if "provider" in cell})
    said = f"{one_line(found['machine'])}; {', '.join(providers)}; {found['date']}."
    lost = [f"Not measured: {name}, {reason}." for name, reason in found["failed"].items()]
    return "\n".join([*lines, said, *(part for text in lost for part in ("", text))]) + "\n"


def plot(found: dict[str, Any]) -> bytes:
    """The measurement as an SVG: a panel for each axis that has cells."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "mal-trt", "font.size": 8}
    cells = found["cells"]

    def series(prefix: str, figure: str) -> tuple[list[float], list[float]]:
        points = sorted(
            (float(name.rpartition(" ")[2]), cell[figure])
            for name, cell in cells.items()
            if name.rpartition(" ")[0] == prefix
        )
        return [x for x, _ in points], [y for _, y in points]

    panels = {
        "Boxes a second, by number of boxes": ("boxes", "boxes_per_s", "log"),
        "Peak memory in MB, by number of boxes": ("boxes", "peak_mb", "log"),
        "Boxes a second, by megapixels of the picture": ("pictures", "boxes_per_s", "log"),
        "Peak memory in MB, by megapixels of the picture": ("pictures", "peak_mb", "log"),
        "Boxes a second, by threads or processes": ("threads", "boxes_per_s", "linear"),
    }
    lines = {
        "boxes": (("label", "boxes label", ""), ("no network, no pictures", "boxes hollow", "")),
        "pictures": (("exact", "pictures", "exact_"), ("--decode scaled", "pictures", "scaled_")),
        "threads": (("threads", "threads", ""), ("processes", "workers", "")),
    }
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, (axis, name, scale)) in enumerate(panels.items()):
        axes = figure.add_subplot(2, 3, place + 1)
        for text, prefix, before in lines[axis]:
            if any(cell_name.rpartition(" ")[0] == prefix for cell_name in cells):
                axes.plot(*series(prefix, before + name), "o-", markersize=3, linewidth=1, label=text)
        axes.set_title(title, fontsize=8)
        axes.set_xscale(scale)
        axes.set_yscale("log" if scale == "log" and name == "boxes_per_s" else "linear")
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(f"{one_line(found['machine'])}, {found['date']}", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in KINDS:
        cell()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=EXAMPLES / "photos")
    parser.add_argument("--boxes", type=Path, default=EXAMPLES / "boxes.json", help="COCO")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=AXES)
    parser.add_argument("--largest", type=int, default=HOLLOW[-1], help="number of boxes; default: a million")
    parser.add_argument("--limit", type=float, default=900, help="seconds for one cell")
    parser.add_argument("--stop-after", type=float, help="begin no cell after so many seconds")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "scaling.json")
    parser.add_argument("--plot", type=Path, help="an .svg to draw")
    parser.add_argument("--write", type=Path, metavar="PAPER", help="put the tables between the marks of a paper")
    arguments = parser.parse_args()
    machine = hardware()
    facts = {
        "data": arguments.images.resolve().parent.name,
        "boxes_sha256": file_sha256(arguments.boxes),
        "model_sha256": file_sha256(resolve_model(arguments.model)),
        "cpu": f"{machine['cpu']}, {machine['cores']} cores",
    }
    cells = Cells(arguments.json, facts, arguments.stop_after, arguments.fresh)
    given = ["--images", arguments.images, "--boxes", arguments.boxes, "--model", arguments.model]
    for name, options in cells_of(list(arguments.axes), arguments.largest, usable_cores()).items():
        cells.measure(name, [sys.executable, __file__, *options, *given], arguments.limit)
    cells.save(machine=machine)
    if cells.late:
        print("stopped for want of time; the same command goes on")
    found = json.loads(arguments.json.read_text())
    print(table(found))
    if arguments.plot is not None:
        arguments.plot.write_bytes(plot(found))
    if arguments.write is not None:
        write_between(arguments.write, "scaling", table(found))


def cell() -> None:
    """One cell, in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int)
    parser.add_argument("--megapixels", type=float)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        arguments.out.write_text(json.dumps(KINDS[arguments.kind](arguments, Path(name))))


if __name__ == "__main__":
    main()
