"""What a measurement was taken on, as this machine and pretended programs tell it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mal_trt.measure.hardware import hardware, power


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
