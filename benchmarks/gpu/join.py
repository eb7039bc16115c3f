"""On the GPU machine: puts the pieces of pack.py together and installs the package, as far as they are there.

    python benchmarks/gpu/join.py [--work /tmp/gpu]

Every call brings a folder of .gpu/; parts are kept in WORK/pieces, and an archive that is whole is checked by its
SHA-256 and unpacked into WORK/site-NAME. Wheels beside them are unpacked into WORK/site-small, the package into
WORK/site.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = ("training", "export", "calibration", "engines", "examples")  # the repository's folders that are subpackages


def keep_parts(work: Path) -> None:
    """Copy the parts of this call, and unpack every archive that is whole and not there yet."""
    pieces = work / "pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    for folder in sorted((ROOT / ".gpu").glob("[0-9]*")):
        for path in folder.iterdir():
            if path.suffix == ".whl":
                with zipfile.ZipFile(path) as wheel:
                    wheel.extractall(work / "site-small")
            elif path.is_file():
                shutil.copy(path, pieces / path.name)
    index = pieces / "pieces.json"
    if not index.exists():
        return
    content = json.loads(index.read_text())
    for name, whole in content["archives"].items():
        site = work / f"site-{name}.done"
        parts = [pieces / part["file"] for part in content["parts"] if part["name"] == name]
        if site.exists() or not all(part.exists() for part in parts):
            continue
        archive = b"".join(part.read_bytes() for part in parts)
        if hashlib.sha256(archive).hexdigest() != whole["sha256"]:
            raise SystemExit(f"error: {name}: its parts are damaged; send them again")
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as tar:
            tar.extractall(work / f"site-{name}", filter="data")
        site.touch()
        print(f"{name} is there", flush=True)


def install(work: Path) -> None:
    """The package laid out as setuptools installs it."""
    site = work / "site" / "mal_trt"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "mal_trt", site)
    for name in TOP:
        shutil.copytree(ROOT / name, site / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/gpu"))
    work = parser.parse_args().work
    keep_parts(work)
    install(work)


if __name__ == "__main__":
    main()
