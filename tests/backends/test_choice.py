"""Which backend runs a file: the one named, or what `auto` stands for; and what cannot be had together."""

from __future__ import annotations

from pathlib import Path

import pytest

from mal_trt.backends import choice, open_backend
from mal_trt.backends.choice import VARIABLE, backend_of, on_processor, one_each, processor_backend, reference_backend
from mal_trt.base.errors import InputError

pytest.importorskip("onnx")
from small_graphs import contract, write_eight_bits, write_model


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine where OpenVINO is installed and the processor computes bfloat16."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(choice, "installed", lambda: True)
    monkeypatch.setattr(choice, "native_half", lambda: "bf16")
    return monkeypatch


def test_auto_takes_openvino_only_where_it_wins(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    single, eight = write_model(tmp_path / "m.onnx", contract()), write_eight_bits(tmp_path / "int8.onnx")
    assert (processor_backend(single), processor_backend(eight)) == ("openvino", "onnxruntime")
    for half in (None, "fp16"):
        here.setattr(choice, "native_half", lambda half=half: half)
        assert processor_backend(single) == "onnxruntime"
    here.setattr(choice, "native_half", lambda: "bf16")
    here.setattr(choice, "installed", lambda: False)
    assert processor_backend(single) == "onnxruntime"


def test_the_variable_decides_for_a_machine(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "m.onnx", contract())
    here.setenv(VARIABLE, "onnxruntime")
    assert processor_backend(path) == "onnxruntime"
    here.setattr(choice, "native_half", lambda: None)
    here.setenv(VARIABLE, "openvino")
    assert processor_backend(path) == "openvino"
    for wrong in ("auto", "tensorrt", "OpenVINO"):
        here.setenv(VARIABLE, wrong)
        with pytest.raises(InputError, match=f"{VARIABLE} '{wrong}': expected onnxruntime or openvino"):
            open_backend(path, "cpu")


def test_what_is_named_runs(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    here.setenv(VARIABLE, "openvino")
    path = write_model(tmp_path / "m.onnx", contract())
    assert open_backend(path, "cpu", 1, backend="onnxruntime").provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("name", "device", "backend", "said"),
    [
        ("m.onnx", "cpu", "tflite", "backend 'tflite': expected one of auto, onnxruntime, openvino, tensorrt"),
        ("m.engine", "auto", "openvino", "m.engine: an engine, which only TensorRT runs; leave out --backend openvino"),
        ("m.plan", "auto", "onnxruntime", "m.plan: an engine, which only TensorRT runs"),
        ("m.onnx", "auto", "tensorrt", "m.onnx: not an engine, and TensorRT runs nothing else; `mal-trt build-engine`"),
        ("m.onnx", "cuda:1", "openvino", "backend openvino: it runs models on the processor; leave out --device cuda"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, here: pytest.MonkeyPatch, name: str, device: str, backend: str, said: str
) -> None:
    path = write_model(tmp_path / "m.onnx", contract()).rename(tmp_path / name)
    with pytest.raises(InputError) as caught:
        open_backend(path, device, backend=backend)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_package_is_told_with_its_extra(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    here.setattr(choice, "installed", lambda: False)
    path = write_model(tmp_path / "m.onnx", contract())
    with pytest.raises(InputError, match=r'backend openvino: not installed; run: pip install "mal-trt\[openvino\]"'):
        open_backend(path, backend="openvino")


def test_names() -> None:
    assert [backend_of(name) for name in ("CPUExecutionProvider", "OpenVINO (bf16)", "TensorRT 10.3.0 (H200)")] == [
        "onnxruntime",
        "openvino",
        "tensorrt",
    ]
    assert on_processor("CPUExecutionProvider") and on_processor("OpenVINO (fp32)")
    assert not on_processor("CUDAExecutionProvider") and not on_processor("TensorRT-RTX 1.7.1.116 (H200)")
    assert [reference_backend(name) for name in ("bundled", "a.onnx", "a.engine")] == [
        "onnxruntime",
        "onnxruntime",
        "tensorrt",
    ]
    assert one_each("openvino", 2) == one_each(["openvino"], 2) == ["openvino", "openvino"]
    assert one_each("onnxruntime, openvino", 2) == ["onnxruntime", "openvino"]
    with pytest.raises(InputError, match="backend a,b: 2 for 3 models"):
        one_each("a,b", 3)
