"""A Jetson installs wheels and compiles nothing: a table of them, held against pyproject.toml, and made again where a
registry can be reached.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

packaging_tags = pytest.importorskip("packaging.tags")
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parent.parent
TABLE = json.loads((ROOT / "tests" / "golden" / "aarch64_wheels.json").read_text())
GLIBC = {"3.10": 35, "3.12": 39}  # of Ubuntu 22.04 (JetPack 6) and 24.04 (JetPack 7)


def requirements() -> list[Requirement]:
    """The runtime's and the extra's, as the project says them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    blocks = [re.search(rf"^{name} = \[(.*?)^\]", text, re.M | re.S) for name in ("dependencies", "jetson")]
    found = [line for block in blocks if block for line in re.findall(r'^    "(.+)",$', block[1], re.M)]
    assert len(found) >= 9
    return [Requirement(line) for line in found]


def fits(python: str) -> set[object]:
    """Tags of wheels that this Python takes on a Jetson."""
    version = tuple(map(int, python.split(".")))
    platforms = [f"manylinux_2_{number}_aarch64" for number in range(GLIBC[python], 16, -1)]
    platforms += ["manylinux2014_aarch64", "linux_aarch64"]
    own = packaging_tags.cpython_tags(version, platforms=platforms)
    return {*own, *packaging_tags.compatible_tags(version, f"cp{python.replace('.', '')}", platforms)}


@pytest.mark.parametrize("python", GLIBC)
def test_every_dependency_has_a_wheel(python: str) -> None:
    wheels = {canonicalize_name(name): parse_wheel_filename(wheel) for name, wheel in TABLE[python].items()}
    for name, (wheel_name, _, _, tags) in wheels.items():
        assert wheel_name == name
        assert tags & fits(python), f"{name}: {TABLE[python][name]} is not for Python {python} on a Jetson"
    wanted = 0
    for requirement in requirements():
        if requirement.marker and not requirement.marker.evaluate({"python_version": python, "sys_platform": "linux"}):
            continue
        name = canonicalize_name(requirement.name)
        assert name in wheels, f"{name}: not in the table; run scripts/aarch64_wheels.py"
        version = wheels[name][1]
        assert requirement.specifier.contains(version), f"{requirement}: the table has {version}"
        wanted += 1
    assert wanted >= 8


def test_the_extra_holds_what_jetpack_lacks() -> None:
    """TensorRT and CUDA are the system's: a second copy from a wheel would be loaded in their place."""
    names = {name for wheels in TABLE.values() for name in wheels}
    assert not {name for name in names if name.startswith(("tensorrt", "nvidia-", "cuda-toolkit"))}
    assert {"cuda-bindings", "onnxruntime"} <= names
    assert TABLE["3.10"]["cuda-bindings"].split("-")[1].startswith("12.")
    assert TABLE["3.12"]["cuda-bindings"].split("-")[1].startswith("13.")


@pytest.mark.slow
def test_it_resolves_today() -> None:
    """Asked of the registry, with uv; skipped where either is missing."""
    if shutil.which("uv") is None or sys.version_info < (3, 11):
        pytest.skip("needs uv and Python 3.11")
    command = [sys.executable, str(ROOT / "scripts" / "aarch64_wheels.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and "error sending request" in done.stderr.lower():
        pytest.skip("no package registry")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wheels for aarch64") == 2
