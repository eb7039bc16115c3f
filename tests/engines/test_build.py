"""Real engines, built by TensorRT-RTX without a GPU: plans, profiles, precision, manifests, interrupts, the command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("tensorrt_rtx")

from command import call, end_in_fp16
from mal_trt.artifacts.enginefile import load_engine
from mal_trt.artifacts.flavor import Messages, open_flavor
from mal_trt.artifacts.manifest import Manifest, Profile, manifest_path
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import platform_tag
from mal_trt.engines import EngineOptions, build_engine, timing_cache
from mal_trt.engines.build import _configure, inspect_network
from mal_trt.engines.job import prepare
from mal_trt.engines.network import parse

RTX = EngineOptions(flavor="tensorrt-rtx", batch=(1, 2, 4))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundled") / "model.engine"
    build_engine("bundled", out, RTX)
    return out


def test_plan_and_manifest(bundled: Path) -> None:
    plan, manifest = load_engine(bundled)
    model = resolve_model("bundled")
    assert plan[:4] == b"vtrt"
    names = ["model.engine", "model.engine.json", "model.engine.parity.npz"]
    assert sorted(p.name for p in bundled.parent.iterdir()) == names
    assert manifest.onnx == "mal_lite0.onnx"
    assert manifest.onnx_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert manifest.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert (manifest.flavor, manifest.os) == ("tensorrt-rtx", platform_tag())
    assert manifest.version == open_flavor("tensorrt-rtx").version
    assert manifest.compute_capabilities == ("8.0+",)
    assert manifest.profiles == (Profile((1, 2, 4)),)
    assert manifest.parity == {"status": "unchecked"}
    assert manifest.command == "mal-trt build-engine bundled -o model.engine --flavor tensorrt-rtx --batch 1,2,4"
    assert manifest.precision_source == "network"
    assert manifest.precision["linear"] == {"fp32": 10} and manifest.precision["convolution"] == {"fp32": 58}
    assert {"attention", "convolution", "normalization", "softmax"} <= set(manifest.precision)
    assert all(set(types) == {"fp32"} for types in manifest.precision.values())
    document = json.loads(manifest_path(bundled).read_text())
    assert document["mal_trt"]["input_size"] == 192
    assert Manifest.from_json(manifest.to_json(), "again") == manifest


def test_three_profiles(dynamic: Path, tmp_path: Path) -> None:
    report = build_engine(dynamic, tmp_path / "tiny.engine", RTX)
    _, manifest = load_engine(report.path)
    assert manifest.profiles == tuple(Profile((1, 2, 4), grid) for grid in (2, 4, 8))
    assert manifest.contract.head == "dynamic"


def test_a_profile_that_the_network_refuses(dynamic: Path, tmp_path: Path) -> None:
    """The shapes given are the shapes built for: a wrong one is noticed."""
    import dataclasses

    from mal_trt.engines.build import build

    job = prepare(dynamic, tmp_path / "tiny.engine", RTX)
    contract = dataclasses.replace(job.contract, input_size=96)
    with pytest.raises(RunError, match="do not fit the model's `image`"):
        build(dataclasses.replace(job, contract=contract))


def test_fp16(dynamic: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    report = build_engine(dynamic, tmp_path / "tiny.engine", EngineOptions(flavor="tensorrt-rtx", precision="fp16"))
    _, manifest = load_engine(report.path)
    assert report.precision == manifest.contract.precision == "fp16"
    assert manifest.precision["linear"] == {"fp16": 6}
    assert set(manifest.precision["normalization"]) == {"fp32"}
    assert manifest.onnx == "tiny.engine.fp16.onnx" and (tmp_path / manifest.onnx).is_file()
    assert "--precision fp16" in manifest.command
    with pytest.raises(InputError, match="is fp16 already; give the FP32 model"):
        build_engine(tmp_path / manifest.onnx, tmp_path / "again.engine", EngineOptions(precision="fp32"))


def test_fp16_with_fp32_attention(dynamic: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from mal_trt.engines.precision import WIDE_ATTENTION, typed_model

    onnx = typed_model(dynamic, WIDE_ATTENTION, tmp_path / "tiny.engine", (), lambda text: None)
    precision = inspect_network(prepare(onnx, tmp_path / "tiny.engine", RTX))
    assert set(precision["attention"]) == {"fp32"}
    assert precision["linear"] == {"fp16": 6}
    build_engine(onnx, tmp_path / "tiny.engine", RTX)


def test_int8(tmp_path: Path, bundled: Path) -> None:
    """Of any ranges: what is built, not how good it is, is the question here."""
    pytest.importorskip("onnx")
    from dataclasses import replace

    from mal_trt.calibration.graph import fold_constants, load_onnx, set_contract
    from mal_trt.calibration.half import to_half
    from mal_trt.calibration.output import save
    from mal_trt.calibration.quantize import choose, quantize, usual_groups

    model, contract, _ = load_onnx("bundled")
    half = to_half(model)
    chosen = choose(half, usual_groups(fold_constants(model)), "bundled")
    quantized = quantize(half, chosen, {layer.name: 8.0 for layer in chosen})
    set_contract(quantized, replace(contract, precision="int8"))
    save(quantized, tmp_path / "int8.onnx")
    _, manifest = load_engine(build_engine(tmp_path / "int8.onnx", tmp_path / "int8.engine", RTX).path)
    assert manifest.contract.precision == "int8"
    assert {layer.group for layer in chosen} == {"conv", "linear", "head"}
    assert sum(types.get("int8", 0) for types in manifest.precision.values()) == len(chosen) >= 60
    assert set(manifest.precision["attention"]) == {"fp16"}
    assert manifest.plan_bytes < 0.75 * load_engine(bundled)[1].plan_bytes


def test_int8_for_processors_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from mal_trt.calibration.graph import load_onnx, set_contract
    from mal_trt.calibration.output import save

    model, contract, _ = load_onnx("bundled")
    set_contract(model, replace(contract, precision="int8", extra={"target": "cpu"}))
    save(model, tmp_path / "cpu.onnx")
    for option in ([], ["--dry-run"]):
        result = call("build-engine", tmp_path / "cpu.onnx", "-o", tmp_path / "m.engine", *option)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert "made for processors (calibrate --target cpu), which TensorRT cannot take" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.onnx"]
    shown = call("inspect", tmp_path / "cpu.onnx")
    assert "    target: cpu" in shown.stdout


@pytest.mark.slow
def test_int8_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from functools import partial

    from mal_trt.calibration import settings

    monkeypatch.setattr(
        settings, "CalibrationSettings", partial(settings.CalibrationSettings, crops=48, check_crops=16)
    )
    examples = Path(__file__).parents[2] / "examples"
    boxes = json.loads((examples / "boxes.json").read_text())
    boxes["annotations"] = [{**a, "id": i} for i, a in enumerate(boxes["annotations"] * 8)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    sources = ("--images", examples / "photos", "--boxes", tmp_path / "boxes.json")
    out = tmp_path / "model.engine"
    result = call("build-engine", "bundled", "-o", out, "--precision", "int8", *sources)
    assert result.exit_code == 0, result.output
    _, manifest = load_engine(out)
    assert manifest.contract.precision == "int8" and "--precision int8 --images" in manifest.command
    assert manifest.precision["linear"]["int8"] >= 1


@pytest.mark.slow
def test_vit_base(tmp_path: Path) -> None:
    """The network MAL is published with, random weights, 512 pixels, FP32."""
    pytest.importorskip("torch")
    from mal_trt.export import export_onnx
    from mal_trt.training.checkpoint import save_checkpoint
    from mal_trt.training.network import NetworkConfig, build_network

    config = NetworkConfig("vit-mae-base/16", "patch", 512)
    save_checkpoint(tmp_path / "base.pth", config, student=build_network(config).state_dict())
    onnx = export_onnx(tmp_path / "base.pth", tmp_path / "base.onnx").path
    report = build_engine(onnx, tmp_path / "base.engine", EngineOptions(flavor="tensorrt-rtx"))
    _, manifest = load_engine(report.path)
    assert [profile.grid for profile in manifest.profiles] == [16, 32, 64]
    assert manifest.precision["attention"]["fp32"] >= 24


@pytest.mark.parametrize(
    ("refusing", "message"),
    [
        ({"add_optimization_profile.return_value": -1}, r"TensorRT-RTX .* refuses the profile of batch 1, 2, 4"),
        ({"set_compute_capability.return_value": False}, r"refuses to build for compute capability 8\.9"),
    ],
)
def test_what_tensorrt_refuses_is_told(refusing: dict[str, Any], message: str, tmp_path: Path) -> None:
    job = prepare(resolve_model("bundled"), tmp_path / "m.engine", replace(RTX, compute_capabilities=("8.9",)))
    answers = {"add_optimization_profile.return_value": 0, "set_compute_capability.return_value": True, **refusing}
    builder = Mock(**{"create_builder_config.return_value": Mock(**answers)})
    with pytest.raises(RunError, match=message):
        _configure(job, Mock(builder=builder))


def test_dry_run_builds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "model.engine"
    result = call("build-engine", "bundled", "-o", out, "--dry-run", "--compute-capability", "8.9,8.6")
    assert result.exit_code == 0, result.output
    assert "compute capability 8.6, 8.9" in result.stdout and "convolution 58 fp32" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "model.engine"
    result = call("build-engine", "bundled", "-o", out, "--batch", "2", "--workspace", "1GiB", "--opt-level", "0")
    assert result.exit_code == 0, result.output
    assert "accuracy: unchecked" in result.stdout and "batch 1 to 2, best 2" in result.stdout
    _, manifest = load_engine(out)
    assert (manifest.workspace, manifest.opt_level) == (1 << 30, 0)
    shown = call("inspect", out, "--json")
    document = json.loads(shown.stdout)["result"]
    assert document["kind"] == "engine" and document["plan_sha256"] == manifest.plan_sha256


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--batch", "0"], 2, "--batch 0"),
        (["--batch", "4,2,1"], 2, "--batch 4,2,1"),
        (["--workspace", "much"], 2, "--workspace much"),
        (["--compute-capability", "ampere"], 2, "numbers such as 8.6"),
        (["--compute-capability", "3.5"], 2, "knows 7.5, 8.0"),
        (["--compute-capability", "7.5"], 1, "Turing"),
        (["--version-compatible"], 2, "--version-compatible"),
        (["--hardware-compatible"], 2, "--hardware-compatible"),
        (["--precision", "int8"], 2, "give --boxes too"),
        (["--precision", "int8", "--images", "photos"], 2, "each needs the other"),
    ],
)
def test_options_that_cannot_be_met(options: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = call("build-engine", "bundled", "-o", tmp_path / "m.engine", "--flavor", "tensorrt-rtx", *options)
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == code and last.startswith("error: ") and message in last
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.onnx", "missing/model.engine", "."])
def test_output_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build_engine("bundled", tmp_path / name, RTX)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_ours(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(resolve_model("bundled"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    for name, message in (
        ("foreign", "without mal-trt's"),
        ("text", "not an ONNX file"),
        ("empty", "not an ONNX file"),
    ):
        with pytest.raises(InputError, match=message):
            build_engine(tmp_path / f"{name}.onnx", tmp_path / "m.engine", RTX)


def test_a_model_tensorrt_cannot_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(resolve_model("bundled"))
    cast = next(node for node in model.graph.node if node.input and node.input[0] == "image")
    transpose = onnx.helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 1, 3, 2])
    cast.input[0] = "turned"
    model.graph.node.insert(0, transpose)
    onnx.save(model, tmp_path / "turned.onnx")
    with pytest.raises(InputError, match="uint8 input is used before it is cast"):
        inspect_network(prepare(tmp_path / "turned.onnx", tmp_path / "m.engine", RTX))


def test_failed_write_leaves_the_old_pair(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.engine"
    for path in (bundled, manifest_path(bundled)):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        build_engine("bundled", out, RTX)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.engine", "model.engine.json"]
    load_engine(out)


def test_progress_only_rises(tmp_path: Path) -> None:
    from mal_trt.engines.build import build

    shares: list[float] = []
    build(prepare("bundled", tmp_path / "m.engine", RTX), shares.append)
    assert len(shares) > 100 and shares == sorted(shares)
    assert shares[0] < 0.1 and shares[-1] > 0.8 and shares[-1] <= 1


def test_stopped_from_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor told to stop ends the build: nothing comes out of it."""
    from mal_trt.engines import build as module

    class Stopped(module.Monitor):
        def __init__(self, show: Any) -> None:
            super().__init__(show)
            self.stop.set()

    monkeypatch.setattr(module, "Monitor", Stopped)
    with pytest.raises(RunError, match="the build was stopped"):
        module.build(prepare("bundled", tmp_path / "m.engine", RTX))


# Runs build-engine, and sends itself a signal once: when the model is read, or when TensorRT reports its first step.
SIGNALLED = """
import os, signal, sys
from mal_trt.cli import main
from mal_trt.engines import build

when, number, *sys.argv[1:] = sys.argv[1:]
owner, name = (build, "parse") if when == "reading" else (build.Monitor, "_change")
before = getattr(owner, name)

def signalling(*given, **named):
    setattr(owner, name, before)
    os.kill(os.getpid(), signal.Signals[number])
    return before(*given, **named)

setattr(owner, name, signalling)
sys.exit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("when", ["reading", "building"])
def test_interrupt(when: str, number: str, tmp_path: Path) -> None:
    words = ["build-engine", "bundled", "-o", str(tmp_path / "m.engine")]
    command = [sys.executable, "-c", SIGNALLED, when, number, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    said = done.stderr.splitlines()
    assert done.returncode == 130 and said[0].startswith("building fp32") and said[1:] == ["interrupted"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ended_while_the_typed_model_is_made(tmp_path: Path) -> None:
    end_in_fp16(tmp_path, "build-engine", "bundled", "-o", "m.engine")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_timing_cache_comes_back(tmp_path: Path) -> None:
    """Through the library's own calls; TensorRT-RTX measures nothing, so what comes back is an empty cache."""
    flavor = open_flavor("tensorrt-rtx")
    builder = parse(flavor, resolve_model("bundled"), Messages()).builder
    path = tmp_path / "new" / "timing.bin"
    for known in (False, True):
        config = builder.create_builder_config()
        assert timing_cache.attach(config, path) is known
        timing_cache.store(config, path)
        assert path.stat().st_size > 0 and list(path.parent.iterdir()) == [path]


class OtherGpu:
    """A double of TensorRT's configuration that takes only an empty cache."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.given.append(cache)
        return cache == b"" and not ignore_mismatch


def test_timing_cache_of_another_gpu(tmp_path: Path) -> None:
    (tmp_path / "timing.bin").write_bytes(b"measured elsewhere")
    config = OtherGpu()
    assert timing_cache.attach(config, tmp_path / "timing.bin") is False
    assert config.given == [b"measured elsewhere", b""]
