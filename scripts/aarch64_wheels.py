"""Which wheels a Jetson installs: resolves the runtime and its extra `jetson` for aarch64, and writes the table that
tests/test_aarch64.py holds against pyproject.toml. Needs uv and the package registry:

    python scripts/aarch64_wheels.py tests/golden/aarch64_wheels.json

Without a file it only checks that everything resolves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parent.parent
# JetPack 6 is Ubuntu 22.04, JetPack 7 is Ubuntu 24.04.
PLATFORMS = {"3.10": (2, 35), "3.12": (2, 39)}


def main(out: Path | None) -> None:
    """Resolve for each Python of JetPack; the table goes to `out`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["jetson"]]
    table = {python: resolve(wanted, python, glibc) for python, glibc in PLATFORMS.items()}
    if out is not None:
        out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for python, wheels in table.items():
        print(f"Python {python}: {len(wheels)} wheels for aarch64")


def resolve(wanted: list[str], python: str, glibc: tuple[int, int]) -> dict[str, str]:
    """Package -> the wheel of it that fits; CalledProcessError if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        given, lock = Path(folder, "wanted.in"), Path(folder, "pylock.toml")
        given.write_text("\n".join(wanted))
        command = ["uv", "pip", "compile", str(given), "--only-binary", ":all:", "--format", "pylock.toml"]
        command += ["--python-version", python, "--python-platform", f"aarch64-manylinux_{glibc[0]}_{glibc[1]}"]
        subprocess.run([*command, "--quiet", "--output-file", str(lock)], check=True, capture_output=True)
        packages = tomllib.loads(lock.read_text())["packages"]
    return {package["name"]: best([w["url"].split("/")[-1] for w in package["wheels"]], python) for package in packages}


def best(names: list[str], python: str) -> str:
    """The first of a package's wheels that such a machine takes."""
    fits = tags(python, PLATFORMS[python])
    return next(name for name in names if parse_wheel_filename(name)[3] & fits)


def tags(python: str, glibc: tuple[int, int]) -> set[Tag]:
    """Every tag of a wheel that CPython of this version takes on Linux, aarch64, with this glibc."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = map(int, python.split("."))
    platforms = [f"manylinux_2_{number}_aarch64" for number in range(glibc[1], 16, -1)]
    platforms += ["manylinux2014_aarch64", "linux_aarch64"]
    return {
        *cpython_tags((major, minor), platforms=platforms),
        *compatible_tags((major, minor), f"cp{major}{minor}", platforms),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
