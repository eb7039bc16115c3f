"""TensorRT that is missing, broken, too old or foreign, and what its log is turned into. The modules are made up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from mal_trt.artifacts.flavor import API, MORE, Messages, open_flavor, version_numbers
from mal_trt.artifacts.trtmessages import KNOWN, explain
from mal_trt.base.errors import InputError, RunError


def module(flavor: str, version: str, without: str = "") -> ModuleType:
    """A module that has all of the API but one name."""
    made = ModuleType(flavor)
    made.__version__ = version  # type: ignore[attr-defined]
    table = {owner: (*API.get(owner, ()), *MORE[flavor].get(owner, ())) for owner in {*API, *MORE[flavor]}}
    for owner, members in table.items():
        names = {member: member for member in members if f"{owner}.{member}" != without}
        setattr(made, owner, type(owner, (), names))
    return made


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("10.3.0", "10.16.1.11", "11.4.0.106"):
        monkeypatch.setitem(sys.modules, "tensorrt", module("tensorrt", version))
        assert open_flavor("tensorrt").version == version
    for version in ("8.6.1", "10.2.0", "7.1.3.4"):
        monkeypatch.setitem(sys.modules, "tensorrt", module("tensorrt", version))
        with pytest.raises(RunError, match=rf"TensorRT {version} is too old.*JetPack 6\.1"):
            open_flavor("tensorrt")
    assert version_numbers("11.4.0.dev1") == (11, 4, 0) and version_numbers("") == ()


def test_a_library_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module("tensorrt", "12.0.0", "IBuilderConfig.clear_flag"))
    with pytest.raises(RunError, match=r"TensorRT 12\.0\.0 lacks IBuilderConfig\.clear_flag"):
        open_flavor("tensorrt")


def test_missing_and_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RunError, match=r"TensorRT is installed but cannot|TensorRT is not installed"):
        open_flavor("tensorrt")
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RunError, match=r"cannot be loaded \(libnvinfer\.so\.10"):
        open_flavor("tensorrt")
    (tmp_path / "tensorrt.py").write_text("import tensorrt_libs_that_are_not_there")
    with pytest.raises(RunError, match="tensorrt_libs_that_are_not_there is not"):
        open_flavor("tensorrt")
    with pytest.raises(InputError, match="expected one of tensorrt, tensorrt-rtx"):
        open_flavor("openvino")


def test_a_member_of_a_newer_version() -> None:
    from mal_trt.artifacts.flavor import Flavor

    old = Flavor("tensorrt", "10.3.0", module("tensorrt", "10.3.0"))
    assert old.member("BuilderFlag", "TF32") == "TF32"
    with pytest.raises(RunError, match=r"TensorRT 10\.3\.0 has no HardwareCompatibilityLevel\.SAME"):
        old.member("HardwareCompatibilityLevel", "SAME")


def test_messages_keep_what_is_loud() -> None:
    messages = Messages()
    for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
        messages.add(severity, severity.lower())
    assert [severity for severity, _ in messages.all] == ["WARNING", "ERROR", "INTERNAL_ERROR"]
    assert messages.errors == ["error", "internal_error"]


# As users have reported them, and as TensorRT-RTX 1.7.1 gives them.
SEEN = [
    (
        "1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Serialization assertion "
        "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 243, "
        "Serialized Engine Version: 239)",
        "tag 239, here 243",
    ),
    (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion magicTagRead == "
        "kMAGIC_TAG failed... magicTag == rt::kPLAN_MAGIC_TAG failed. Trying to load an engine created with "
        "incompatible serialization version.)",
        "no plan of this TensorRT",
    ),
    (
        "The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 7.5, please "
        "rebuild.",
        "capabilities 8.6 and 7.5 differ",
    ),
    ("Using an engine plan file across different models of devices is not recommended", "another model of GPU"),
    ("Assertion plan.header.size == blobSize failed", "cut short"),
    ("CUDA initialization failure with error: 35", "no NVIDIA driver"),
    ("Error Code 1: Cuda Runtime (In x.cpp:25 (cudaError 35: CUDA driver version is insufficient))", "driver"),
    ("[optimizer.cpp] Could not find any implementation for node {ForeignNode[a...b]}.", "ForeignNode[a...b]"),
    ("Requested amount of GPU memory (100 bytes) could not be allocated: Out of memory", "memory ran out"),
    ("Error Code 7: BuildCanceled (Build canceled by user In next at x.cpp:92)", "stopped"),
    ("model contains HW-specific datatypes: fp8_e4m3", "fp8_e4m3"),
    (
        "Attention operation was not supported by a dedicated kernel, see IAttention::setDecomposable",
        "no kernel for the Attention operator",
    ),
    (
        "ElementWiseOperation SUM must have same input types. But they are of types Float and Half.",
        "mixes types in one operator",
    ),
    (
        "Unable to load library: libnvinfer_lean.so.1: libnvinfer_lean.so.1: cannot open shared object file",
        "lean runtime",
    ),
    ("Running layernorm after self-attention in FP16 may cause overflow.", "LayerNorm in FP16"),
]


@pytest.mark.parametrize(("message", "sentence"), SEEN)
def test_messages_become_sentences(message: str, sentence: str) -> None:
    assert sentence in explain([message])
    assert sentence in explain(["something nobody has seen", message])


def test_messages_nobody_knows() -> None:
    assert explain([]) == "TensorRT gave no reason"
    assert explain(["first\n  line", "second"]) == "first line"
    assert len(explain(["x" * 1000])) < 310
    assert all("\n" not in sentence for _, sentence in KNOWN)
