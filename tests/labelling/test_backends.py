"""Labelling by OpenVINO: the masks, what the records name, and a run that is resumed by another backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mal_trt import Summary, evaluate, label
from mal_trt.base.errors import InputError
from mal_trt.labelling import pipeline
from mal_trt.measure.benchmark import benchmark
from mal_trt.measure.compare import compare

pytest.importorskip("openvino")

Write = Callable[..., Any]
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 2, "progress": False}


def run(data: tuple[Path, Path], model: Path, out: Path, **options: Any) -> Summary:
    return label(*data, model, out, **{**OPTIONS, "batch": 4, **options})


def test_label_names_what_ran(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    data, model = data_set(), tiny_model()
    summary = run(data, model, tmp_path / "a.json", backend="openvino")
    assert summary.labelled == 18 and summary.provider == f"OpenVINO ({summary.precision})"
    record = json.loads((tmp_path / "a.run.json").read_text())
    assert (record["backend"], record["precision"]) == ("openvino", summary.precision)
    assert record["provider"] == record["used"]["provider"] == summary.provider
    run(data, model, tmp_path / "b.json", backend="openvino")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    reference = run(data, model, tmp_path / "c.json", backend="onnxruntime")
    assert (reference.provider, reference.precision) == ("CPUExecutionProvider", "fp32")
    found = evaluate(data[0], tmp_path / "c.json", labels=tmp_path / "a.json")
    assert found["miou_instance"] > 0.95


def test_a_run_begun_by_another_backend_is_not_resumed(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, out = data_set(), tiny_model(), tmp_path / "labels.json"

    def stopped(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "_label", stopped)
        run(data, model, out, backend="openvino")
    with pytest.raises(InputError, match=r"provider was OpenVINO \(.*\), now CPUExecutionProvider") as caught:
        run(data, model, out, backend="onnxruntime", resume=True)
    assert "\n" not in str(caught.value)
    done = run(data, model, out, backend="openvino", resume=True)
    assert run(data, model, out, resume=True).finished_before and done.labelled == 18
    with pytest.raises(InputError, match=r"finished by another run.*backend was openvino, now onnxruntime"):
        run(data, model, out, backend="onnxruntime", resume=True)


def test_compare_and_benchmark_take_a_backend_for_each_model(
    tmp_path: Path, tiny_model: Write, data_set: Write
) -> None:
    (images, boxes), model = data_set(), tiny_model()
    both = "onnxruntime,openvino"
    compared = compare([model, model], images, boxes=boxes, backend=both, **OPTIONS)
    facts = [compared["reference"], *compared["models"]]
    assert [fact["backend"] for fact in facts] == both.split(",") and facts[0]["precision"] == "fp32"
    assert facts[1]["mask_iou"]["mean"] > 0.95
    assert facts[1]["provider"] == f"OpenVINO ({facts[1]['precision']})"
    timed = benchmark(
        [model, model], images, boxes, backend=both, batches=(1,), runs=1, rounds=1, warm_up=0, seconds=0, **OPTIONS
    )
    assert [one["backend"] for one in timed["models"]] == both.split(",")
    assert all(one["label"]["boxes"] == 18 and one["network"][0]["runs"] == 1 for one in timed["models"])
    with pytest.raises(InputError, match="2 for 3 models"):
        compare([model] * 3, images, boxes=boxes, backend=both, **OPTIONS)
