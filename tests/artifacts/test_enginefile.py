"""Engines that are refused before TensorRT sees a byte, each with its reason. The plans here are made up."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.enginefile import check_machine, load_engine
from mal_trt.artifacts.flavor import Flavor
from mal_trt.artifacts.manifest import Manifest, Profile, manifest_path, read_manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError
from mal_trt.base.gpu import platform_tag

BODY = bytes(range(200))


def plan(flavor: str) -> bytes:
    """Bytes with the header of a plan: magic, and TensorRT-RTX's size at byte 16."""
    head = (b"ftrt" if flavor == "tensorrt" else b"vtrt") + bytes(12) + (64 + len(BODY)).to_bytes(8, "little")
    return head.ljust(64, b"\0") + BODY


def engine(folder: Path, flavor: str = "tensorrt", **changes: Any) -> tuple[Path, Manifest]:
    content = plan(flavor)
    options = "--flavor tensorrt-rtx" if flavor == "tensorrt-rtx" else "--flavor tensorrt --batch 1,2,4"
    manifest = Manifest(
        contract=Contract("vit-mae-base/16", "patch", 512),
        flavor=flavor,
        version="10.3.0" if flavor == "tensorrt" else "1.7.1.116",
        compute_capabilities=("8.6",) if flavor == "tensorrt" else ("8.0+",),
        os=platform_tag(),
        gpu="RTX 3060",
        precision={"linear": {"fp16": 48}},
        precision_source="network",
        profiles=(Profile((1, 2, 4), 16),),
        flags=(),
        opt_level=3,
        workspace=None,
        onnx="model.onnx",
        onnx_sha256="0" * 64,
        plan_sha256=hashlib.sha256(content).hexdigest(),
        plan_bytes=len(content),
        parity={"status": "unchecked"},
        command=f"mal-trt build-engine model.onnx -o model.engine {options}",
        producer="mal-trt test",
    )
    manifest = replace(manifest, **changes)
    path = folder / "model.engine"
    path.write_bytes(content)
    manifest_path(path).write_text(manifest.to_json())
    return path, manifest


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_engine(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    assert "mal-trt build-engine" in text or "mal-trt export" in text
    return text


def test_a_whole_engine_comes_back(tmp_path: Path) -> None:
    for flavor in ("tensorrt", "tensorrt-rtx"):
        path, manifest = engine(tmp_path, flavor)
        assert load_engine(path) == (plan(flavor), manifest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"hello world, I am a text", "not a TensorRT engine"),
        (b"PK\x03\x04 a zip", "a PyTorch checkpoint, not an engine"),
        (b"\x20\x00\x00\x00" + b'{"stride": 32}'.ljust(32) + plan("tensorrt"), "JSON header before the plan"),
        (b"ftrt", "cut short"),
        (plan("tensorrt-rtx")[:100], "cut short, 100 of 264"),
        (plan("tensorrt")[:100], "cut short, 100 of 264"),
        (plan("tensorrt")[:-1] + b"!", "SHA-256 differs"),
        (plan("tensorrt") + b"more", "SHA-256 differs"),
        (plan("tensorrt-rtx"), "SHA-256 differs"),
    ],
)
def test_files_that_are_something_else(content: bytes, message: str, tmp_path: Path) -> None:
    path, _ = engine(tmp_path)
    path.write_bytes(content)
    assert message in refusal(path)


def test_onnx_named_engine(tmp_path: Path) -> None:
    path, _ = engine(tmp_path)
    path.write_bytes(resolve_model("bundled").read_bytes())
    assert "an ONNX model, not an engine" in refusal(path)


def test_missing_files(tmp_path: Path) -> None:
    assert "no such engine" in refusal(tmp_path / "none.engine")
    path, _ = engine(tmp_path)
    manifest_path(path).unlink()
    assert "has no manifest model.engine.json" in refusal(path)


def test_flavor_that_the_plan_denies(tmp_path: Path) -> None:
    path, manifest = engine(tmp_path)
    manifest_path(path).write_text(replace(manifest, flavor="tensorrt-rtx").to_json())
    assert "is of TensorRT, its manifest of TensorRT-RTX" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("flavor", "openvino"),
        ("plan_bytes", "many"),
        ("plan_sha256", None),
        ("profiles", [{"batch": [1, 2]}]),
        ("profiles", {"batch": 1}),
        ("parity", {"status": "fine"}),
        ("opt_level", True),
        ("mal_trt", None),
        ("mal_trt", {"schema": 1}),
    ],
)
def test_broken_manifests(field: str, value: object, tmp_path: Path) -> None:
    path, _ = engine(tmp_path)
    document = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**document, field: value}))
    with pytest.raises(InputError, match=r"model\.engine\.json"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["{", "[]", "7", "\x00"])
def test_manifests_that_are_none(text: str, tmp_path: Path) -> None:
    path, _ = engine(tmp_path)
    manifest_path(path).write_text(text)
    assert "model.engine.json" in refusal(path)


def here(name: str, version: str) -> Flavor:
    return Flavor(name, version, SimpleNamespace())


def verdict(manifest: Manifest, flavor: Flavor, compute_capability: str) -> str:
    """What check_machine says, or "" where it has nothing against it."""
    try:
        check_machine(Path("model.engine"), manifest, flavor, compute_capability)
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_tensorrt_is_bound_to_version_and_gpu(tmp_path: Path) -> None:
    _, manifest = engine(tmp_path)
    assert verdict(manifest, here("tensorrt", "10.3.0"), "8.6") == ""
    assert verdict(manifest, here("tensorrt", "10.3.0.26"), "8.6") == ""  # the same build, told in full
    other = verdict(manifest, here("tensorrt", "10.16.1.11"), "8.6")
    assert "built with TensorRT 10.3.0 for compute capability 8.6" in other
    assert "running on TensorRT 10.16.1.11, compute capability 8.6" in other
    assert other.endswith("mal-trt build-engine model.onnx -o model.engine --batch 1,2,4 --flavor tensorrt")
    assert "bound to the GPUs" in verdict(manifest, here("tensorrt", "10.3.0"), "8.9")
    foreign = replace(manifest, os="windows-x86_64" if platform_tag().startswith("linux") else "linux-x86_64")
    assert "operating system" in verdict(foreign, here("tensorrt", "10.3.0"), "8.6")


def test_compatible_engines(tmp_path: Path) -> None:
    _, manifest = engine(tmp_path, flags=("VERSION_COMPATIBLE",), compute_capabilities=("8.0+",))
    assert verdict(manifest, here("tensorrt", "11.4.0"), "12.0") == ""
    assert "bound to the TensorRT" in verdict(manifest, here("tensorrt", "10.2.0"), "8.6")
    assert "bound to the GPUs" in verdict(manifest, here("tensorrt", "10.3.0"), "7.5")


def test_rtx(tmp_path: Path) -> None:
    _, manifest = engine(tmp_path, "tensorrt-rtx")
    rtx = here("tensorrt-rtx", "1.7.1.116")
    assert verdict(manifest, rtx, "8.6") == verdict(manifest, rtx, "12.0") == ""
    windows = replace(manifest, os="windows-" + platform_tag().split("-")[1])
    assert verdict(windows, rtx, "8.6") == ""
    assert verdict(manifest, rtx, "7.5").endswith("--flavor tensorrt-rtx --compute-capability 7.5")
    narrow = replace(manifest, compute_capabilities=("8.9",))
    assert verdict(narrow, rtx, "8.6").endswith("--compute-capability 8.6,8.9")
    assert "bound to the TensorRT" in verdict(manifest, here("tensorrt-rtx", "1.8.0.1"), "8.6")


def test_the_other_flavor(tmp_path: Path) -> None:
    _, manifest = engine(tmp_path)
    text = verdict(manifest, here("tensorrt-rtx", "1.7.1.116"), "8.6")
    assert "an engine of TensorRT cannot be loaded by TensorRT-RTX" in text
    assert text.endswith("--batch 1,2,4 --flavor tensorrt-rtx")
