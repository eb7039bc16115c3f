"""What a processor multiplies by itself, read from files like Linux's."""

from __future__ import annotations

from pathlib import Path

import pytest

from mal_trt.base import processor
from mal_trt.base.processor import native_half, native_int8, usable_cores

EPYC = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16 clzero\nbugs\t\t: none\n"


@pytest.mark.parametrize(
    ("text", "half"),
    [
        (EPYC, "bf16"),
        ("flags\t: avx512f amx_tile amx_bf16\n", "bf16"),
        ("flags\t: fpu avx2 avx512f avx512_vnni\n", None),
        ("processor\t: 0\nFeatures\t: fp asimd fphp asimdhp cpuid\n", "fp16"),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n", None),
        ("model name\t: an avx512_bf16 processor\n", None),
        ("", None),
    ],
)
def test_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, half: str | None) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(text)
    assert native_half() == half


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "absent")
    assert native_half() is None and not native_int8()


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (EPYC, False),
        ("flags\t: avx512f avx512_vnni\n", True),
        ("flags\t: avx2 avx_vnni\n", True),
        ("flags\t: avx2\n", False),
    ],
)
def test_eight_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, has: bool) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(text)
    assert native_int8() is has


def test_cores() -> None:
    assert usable_cores() >= 1
