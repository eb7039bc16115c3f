"""`benchmark`: percentiles, units, shares and hashes that can be worked out by hand; what fails, fails alone."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from host_cuda import HostDriver
from mal_trt.base.errors import InputError, RunError
from mal_trt.cli import app
from mal_trt.cuda.driver import CudaError
from mal_trt.formats.images import open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.measure import benchmark as module
from mal_trt.measure.benchmark import benchmark
from mal_trt.measure.benchmark_data import COPIES, choose_samples, plan_samples
from mal_trt.measure.benchmark_report import COLUMNS, print_report, rows
from mal_trt.measure.evaluate import evaluate
from mal_trt.measure.hardware import hardware, power
from mal_trt.measure.timing import (
    FEWEST,
    QUEUED,
    Budget,
    DeviceStopwatch,
    HostStopwatch,
    figures,
    in_proportion,
    measure,
)

SMALL, MEDIUM, LARGE = SizeClass
FAST: dict[str, Any] = {
    **{"device": "cpu", "threads": 1, "progress": False},
    **{"batches": (1, 2), "runs": 3, "warm_up": 1, "rounds": 1},
}


class Clock:
    """A clock that goes on only when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Network:
    """A backend whose runs take as long as they are told: `takes` in order, then the last of them."""

    contract: Any = None
    provider = "test double"
    outputs = ("logits",)

    def __init__(self, clock: Clock, *takes: float) -> None:
        self.clock, self._takes = clock, chain(takes, repeat(takes[-1]))
        self.seen: list[tuple[int, SizeClass, str | None]] = []

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        self.seen.append((len(image), size, weights))
        self.clock.seconds += next(self._takes)
        return np.zeros((len(image), 1, 16, 16), np.float32)

    def close(self) -> None: ...


def crops(count: int = 4) -> np.ndarray:
    return np.arange(count * 3 * 64 * 64, dtype=np.uint8).reshape(count, 3, 64, 64)


def test_percentiles_are_of_single_runs_in_milliseconds() -> None:
    found = figures([(LARGE, n / 1000) for n in range(1, 102)], batch=8)  # 1 to 101 ms
    assert (found["p50_ms"], found["p90_ms"], found["p99_ms"]) == pytest.approx((51, 91, 100))
    assert (found["mean_ms"], found["runs"], found["runs_by_size"]) == (pytest.approx(51), 101, {"large": 101})
    assert found["boxes_per_s"] == pytest.approx(8 * 101 / (101 * 0.051))


def test_warm_up_does_not_count() -> None:
    clock = Clock()
    network = Network(clock, 9.0, 9.0, 0.5)
    samples = measure(HostStopwatch(network, crops(), "teacher", clock), {LARGE: 1.0}, Budget(2, 3, 60.0), clock)
    assert samples == [(LARGE, 0.5)] * 3
    assert network.seen == [(4, LARGE, "teacher")] * 5
    assert figures(samples, 4)["boxes_per_s"] == pytest.approx(8)


def test_time_budget() -> None:
    clock = Clock()
    stopwatch = HostStopwatch(Network(clock, 0.25), crops(), None, clock)
    assert len(measure(stopwatch, {LARGE: 1.0}, Budget(1, None, 4.0), clock)) == 16
    slow = HostStopwatch(Network(clock, 60.0), crops(), None, clock)
    began = clock()
    assert len(measure(slow, {LARGE: 1.0}, Budget(10, None, 2.0), clock)) == FEWEST
    assert clock() - began == 60 * (FEWEST + 1)  # one warm-up run was over the budget already


def test_every_size_is_warmed_up_and_timed_in_its_share() -> None:
    clock = Clock()
    network = Network(clock, 1.0)
    shares = {SMALL: 0.5, MEDIUM: 0.3, LARGE: 0.2}
    samples = measure(HostStopwatch(network, crops(), None, clock), shares, Budget(0, 20), clock)
    assert [size for _, size, _ in network.seen[:3]] == [SMALL, MEDIUM, LARGE]
    assert figures(samples, 1)["runs_by_size"] == {"small": 10, "medium": 6, "large": 4}
    for length in range(1, 40):  # at no time is any of them far from its share
        order = list(islice(in_proportion(shares), length))
        assert all(abs(order.count(size) - share * length) < 1.5 for size, share in shares.items())


class Device(HostDriver):
    """The double, with a clock that the queued work moves."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(**options)
        self.clock, self.stamps = clock, dict[int, float]()

    def record(self, event: int, stream: int) -> None:
        super().record(event, stream)
        self.enqueue(stream, lambda: self.stamps.__setitem__(event, self.clock()))

    def elapsed(self, first: int, second: int) -> float:
        super().elapsed(first, second)
        return self.stamps[second] - self.stamps[first]


class DeviceNetwork(Network):
    """A device backend; `run`, which would copy, must not be asked."""

    def __init__(self, driver: Device, *takes: float) -> None:
        super().__init__(driver.clock, *takes)
        self.driver, self.images = driver, list[bytes]()

    def most(self, size: SizeClass) -> int:
        return 32

    def least(self, size: SizeClass) -> int:
        return 8

    def logits_side(self, size: SizeClass) -> int:
        return 16

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        raise AssertionError("copies are no part of the network")

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        self.seen.append((count, size, weights))
        takes = next(self._takes)

        def work() -> None:
            read = self.driver.host.array(image, np.uint8, (max(count, 8), 3, 64, 64))
            self.images.append(read[:count].tobytes())
            self.driver.host.array(logits, np.float32, (max(count, 8), 1, 16, 16))[:] = 0
            self.clock.seconds += takes

        self.driver.enqueue(stream, work)


@pytest.mark.parametrize("mode", ["eager", "deferred"])
def test_a_gpu_is_timed_by_its_events(mode: str) -> None:
    driver = Device(Clock(), mode=mode)
    network = DeviceNetwork(driver, 5.0, 7.0, *(n / 100 for n in range(1, 11)))
    stopwatch = DeviceStopwatch(network, crops(), "student")
    samples = measure(stopwatch, {MEDIUM: 1.0}, Budget(0, 6), Clock())
    # Of the warm-up (5 s, not timed, and 7 s) and of the timed chunk the first run leads and is not timed.
    assert [seconds for _, seconds in samples] == pytest.approx([n / 100 for n in range(2, 8)])
    assert network.seen == [(4, MEDIUM, "student")] * 9
    assert set(network.images) == {crops().tobytes()}
    assert (stopwatch.clock, stopwatch.chunk) == ("CUDA events", QUEUED)
    stopwatch.close()
    assert not any(driver.living.values())


def test_a_gpu_that_fails_leaves_nothing_behind() -> None:
    driver = Device(Clock())
    driver.fail_on("allocate", nth=2, code="CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(CudaError, match="OUT_OF_MEMORY"):
        DeviceStopwatch(DeviceNetwork(driver, 1.0), crops())
    stopwatch = DeviceStopwatch(DeviceNetwork(driver, 1.0), crops())
    driver.fail_on("synchronize")
    with pytest.raises(CudaError):
        stopwatch.time([LARGE, LARGE])
    assert driver.living["event"] == 0
    stopwatch.close()
    assert not any(driver.living.values())


@pytest.fixture
def blobs(data_set: Any) -> tuple[Path, Path]:
    """18 boxes in 3 pictures, 15 of them small; the drawn mask is the left half of the box."""
    images, path = data_set()
    document = json.loads(path.read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w / 2, y, x + w / 2, y + h, x, y + h]]
    path.write_text(json.dumps(document))
    return images, path


@pytest.fixture
def model(tiny_model: Any, tmp_path: Path) -> Any:
    return lambda name, **options: tiny_model(**options).rename(tmp_path / name)


def test_the_whole_result(blobs: tuple[Path, Path], model: Any, tmp_path: Path, capsys: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    files = {"json_out": tmp_path / "r.json", "csv_out": tmp_path / "r.csv"}
    options = {**FAST, "rounds": 2, "threshold": 0.6}
    result = benchmark(models, images, annotations=document, command="mal-trt benchmark ...", **files, **options)
    assert json.loads(files["json_out"].read_text()) == result
    assert (result["complete"], result["command"]) == (True, "mal-trt benchmark ...")
    data = {"name": str(document), "pictures": 3, "boxes": 18, "size_shares": {"small": 0.8333, "medium": 0.1667}}
    assert result["data"] == data
    for path, found in zip(models, result["models"], strict=True):
        assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found["bytes"], found["provider"]) == (path.stat().st_size, "CPUExecutionProvider")
        assert [(row["batch"], row["runs"], row["clock"]) for row in found["network"]] == [
            (1, 6, "wall clock"),
            (2, 6, "wall clock"),
        ]
        assert all(row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] < 10_000 for row in found["network"])
        assert found["network"][1]["runs_by_size"] == {"small": 6}  # of three runs the sixth part is none, twice
        labelled = found["label"]
        assert (labelled["boxes"], labelled["pictures"], labelled["skipped"]) == (18, 3, 0)
        assert len(labelled["seconds"]) == len(labelled["whole_seconds"]) == 2
        assert labelled["boxes_per_s"] == pytest.approx(36 / sum(labelled["seconds"]))
        assert labelled["pictures_per_s"] == pytest.approx(labelled["boxes_per_s"] / 6)
        expected = evaluate(images, document, path, threshold=0.6, device="cpu", threads=1, progress=False)
        for key in ("miou", "miou_small", "miou_medium", "miou_large"):
            assert found["quality"][key] == expected[key]
    first, second = (found["quality"] for found in result["models"])
    assert "iou" not in first and 0.5 < second["iou"] < 1 and second["iou_boxes"] == 18
    with files["csv_out"].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS and len(lines) == 6
    assert [line["what"] for line in lines[:3]] == ["network", "network", "label"]
    for line, row in zip(lines, rows(result), strict=True):
        assert float(line["boxes_per_s"]) == row["boxes_per_s"] and float(line["miou"]) == row["miou"]
    print_report(result)
    shown = capsys.readouterr().out
    assert "mIoU %" in shown and f"{100 * first['miou']:.2f}" in shown and "17 % medium" in shown


def test_quality_without_drawn_masks(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", weights="mixed"), model("c.onnx", gain=-8.0)]
    result = benchmark(models, images, document, **FAST)
    first, same, opposite = (found["quality"] for found in result["models"])
    assert first is None
    assert same == {"iou": 1.0, "iou_boxes": 18}
    assert opposite["iou"] < 0.3


def test_engine_only_labels_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "label", None)
    result = benchmark([model("a.onnx")], end_to_end=False, size="medium", **FAST)
    (found,) = result["models"]
    assert found["label"] is found["quality"] is None
    assert found["network"][0]["runs_by_size"] == {"medium": 3}
    assert result["data"]["name"] == "example photos" and set(result["data"]["size_shares"]) == {"medium", "large"}


def test_one_batch_too_many(blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    images, document = blobs
    original = HostStopwatch.time

    def time(self: HostStopwatch, sizes: Any) -> list[float]:
        count = len(self._crops)
        if count == 4:
            raise MemoryError
        if count == 8:
            raise RunError("ONNX Runtime failed on a batch of 8: no room")
        return original(self, sizes)

    monkeypatch.setattr(HostStopwatch, "time", time)
    result = benchmark([model("a.onnx")], images, document, **{**FAST, "batches": (1, 4, 8, 2), "rounds": 2})
    network = result["models"][0]["network"]
    assert [row.get("runs") for row in network] == [6, None, None, 6]
    assert [row.get("error") for row in network[1:3]] == [
        "out of memory",
        "ONNX Runtime failed on a batch of 8: no room",
    ]
    assert result["complete"] and result["models"][0]["label"]["boxes"] == 18
    print_report(result)
    assert "a.onnx, batch 4: out of memory" in capsys.readouterr().out


def test_labelling_that_fails(blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, document = blobs
    original = module.label

    def label(images: Any, boxes: Any, model: Path, *rest: Any, **options: Any) -> Any:
        if model.name == "a.onnx":
            raise RunError("no room")
        return original(images, boxes, model, *rest, **options)

    monkeypatch.setattr(module, "label", label)
    result = benchmark([model("a.onnx"), model("b.onnx")], images, document, **FAST)
    assert [found["label"].get("error") for found in result["models"]] == ["no room", None]
    assert [found["quality"] for found in result["models"]] == [None, None]  # there is no reference


def test_an_interrupted_run_keeps_what_it_has(
    blobs: tuple[Path, Path], model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, document = blobs

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "label", stop)
    out = [str(tmp_path / name) for name in ("r.json", "r.csv")]
    arguments = ["--images", images, "--boxes", document, "--model", model("a.onnx"), "--batch", "1,2", "--runs", 2]
    done = CliRunner().invoke(
        app, ["benchmark", *map(str, arguments), "--device", "cpu", "--json", out[0], "--csv", out[1]]
    )
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
    assert "a.onnx" in done.stdout and "boxes/s" in done.stdout
    result = json.loads(Path(out[0]).read_text())
    assert result["complete"] is False
    assert [row["batch"] for row in result["models"][0]["network"]] == [1, 2]
    assert Path(out[1]).read_text().count("\n") == 3


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(suffix: str, blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images, document = blobs
    path = tmp_path / f"plot{suffix}"
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    benchmark(models, images, document, plot_out=path, **FAST)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert suffix == ".png" or b"a.onnx, fp32" in content


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": (0,)}, "batch 0"),
        ({"size": "huge"}, "size 'huge'"),
        ({"rounds": 0}, "rounds 0"),
        ({"images": "pictures"}, "belong together"),
        ({"boxes": "boxes.json"}, "belong together"),
        ({"boxes": "boxes.json", "annotations": "boxes.json"}, "give either"),
        ({"images": "pictures", "boxes": "absent.json"}, "absent.json: cannot be read"),
        ({"images": "pictures", "boxes": "list.json"}, "list.json: not a COCO document"),
        ({"images": "pictures", "annotations": "bare.json"}, "bare.json: no box has a drawn mask"),
        ({"images": "pictures", "boxes": "empty.json"}, "no box to measure with (it is empty)"),
        ({"images": "absent", "boxes": "boxes.json"}, "absent: no such folder"),
        ({"json_out": "absent/r.json"}, "folder does not exist"),
        ({"plot_out": "r.pdf"}, "a .png or an .svg"),
        ({"plot_out": "r.png"}, "--plot sets speed against quality"),
        ({"models": []}, "no model to measure"),
        ({"models": ["absent.onnx"]}, "absent.onnx: no such model file"),
        ({"device": "cuda"}, "device cuda"),
    ],
)
def test_bad_input_is_said_before_any_timing(
    options: dict[str, Any], says: str, blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if options.get("device") == "cuda" and hardware().get("gpus"):
        pytest.skip("this machine has a GPU")
    _, document = blobs
    monkeypatch.chdir(document.parent)
    monkeypatch.setattr(module, "measure", None)
    content = json.loads(document.read_text())
    bare = [{k: v for k, v in record.items() if k != "segmentation"} for record in content["annotations"]]
    Path("bare.json").write_text(json.dumps({**content, "annotations": bare}))
    Path("empty.json").write_text(json.dumps({**content, "annotations": []}))
    Path("list.json").write_text("[1]")
    with pytest.raises(InputError) as caught:
        benchmark(**{"models": [model("a.onnx")], **FAST, **options})
    assert says in str(caught.value)


def test_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(app, ["benchmark", "--plot", "r.png"])
    assert done.exit_code == 1
    assert done.stderr == 'error: `mal-trt benchmark` needs matplotlib; run: pip install "mal-trt[benchmark]"\n'


def test_batches_that_are_no_numbers() -> None:
    done = CliRunner().invoke(app, ["benchmark", "--batch", "1;8"])
    assert (done.exit_code, done.stderr.startswith("error: --batch 1;8: ")) == (2, True)


def test_example_photos_and_counts(tmp_path: Path) -> None:
    samples = choose_samples(None, None, None, None, tmp_path)
    plan = plan_samples(samples, open_images(samples.images), tmp_path)
    assert (plan.boxes, plan.pictures) == (21 * COPIES, 7 * COPIES)
    assert sum(plan.shares.values()) == pytest.approx(1)
    some = choose_samples(samples.images, samples.boxes, None, 10, tmp_path / "..")
    document = json.loads(some.boxes.read_text())
    assert len(document["annotations"]) == 10
    assert {record["image_id"] for record in document["annotations"]} == {image["id"] for image in document["images"]}
    some.boxes.unlink()


def test_power_mode_and_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name != "posix":
        pytest.skip("shell scripts")
    said = {
        "nvpmodel": "NV Power Mode: MAXN\n0",
        "nvidia-smi": "580.82, P0, 700.00, 1980, 1980, 2619, 31\n570.1, P8, [N/A], 210, 2100, 405, 40",
    }
    for name, text in said.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = power()
    assert found["nvpmodel"] == "NV Power Mode: MAXN, 0"
    first, second = found["nvidia_smi"]
    assert (first["driver"], first["pstate"], first["power_limit_w"], first["sm_clock_mhz"]) == (
        "580.82",
        "P0",
        700,
        1980,
    )
    assert "power_limit_w" not in second and second["memory_clock_mhz"] == 405
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert "nvidia_smi" not in power()
    monkeypatch.setenv("PATH", "")
    assert not {"nvpmodel", "nvidia_smi"} & power().keys()


def test_hardware_says_what_ran() -> None:
    import onnxruntime

    facts = hardware()
    assert facts["cores"] >= 1 and facts["cpu"] and facts["memory_bytes"] > 1 << 28
    assert facts["libraries"]["numpy"] == np.__version__
    assert onnxruntime.__version__ in (facts["libraries"].get(f"onnxruntime{end}") for end in ("", "-gpu"))
    json.dumps(facts)
