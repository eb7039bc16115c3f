"""Packs what a GPU machine without network lacks into pieces that fit beside the working tree.

    python benchmarks/gpu/pack.py [--cache FOLDER]

Downloads pycocotools, omegaconf (with its antlr4), onnxruntime-gpu and TensorRT-RTX for Python 3.12 on x86-64 Linux
with CUDA 13, takes out what one Hopper GPU never runs, and writes .gpu/1, .gpu/2, ... (git ignores them): one folder
to be carried with each call, so that ONNX Runtime is whole with the second and TensorRT-RTX with the last.
.gpu/pieces.json says what is where, with SHA-256; join.py puts it together again. Fails if a piece and the
tree exceed the limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60 << 20  # bytes of tree and piece together; the machine takes 64 MiB
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
ANTLR = "antlr4-python3-runtime==4.9.3"  # what omegaconf's grammar was made with; pure Python, source only
PACKAGES = {
    "small": ("pycocotools==2.0.11", "omegaconf==2.4.0"),
    "ort": ("onnxruntime-gpu==1.31.1",),  # its PyPI build links CUDA 13: libcublasLt.so.13, libcudart.so.13
    "rtx": ("tensorrt-rtx-cu13-libs==1.7.1.116", "tensorrt-rtx-cu13-bindings==1.7.1.116", "tensorrt-rtx==1.7.1.116"),
}
# Never imported or loaded here.
LEFT_OUT = ("libonnxruntime_providers_tensorrt.so", "onnxruntime/transformers/", "onnxruntime/tools/", "/licenses/")
PROVIDER = "libonnxruntime_providers_cuda.so"
ARCHITECTURE = 90
FATBIN = struct.pack("<I", 0xBA55ED50)


def download(cache: Path) -> dict[str, list[Path]]:
    """Each package's files, in a folder of its own under the cache; what lies there is not fetched again."""
    found = {}
    for name, wanted in PACKAGES.items():
        folder = cache / name
        folder.mkdir(parents=True, exist_ok=True)
        if len(list(folder.glob("*.whl"))) < len(wanted):
            platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
            pip(
                folder, "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms, *wanted
            )
        if name == "small" and not list(folder.glob("antlr4*.tar.gz")):
            pip(folder, "--no-build-isolation", ANTLR)
        found[name] = sorted(path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))
    return found


def pip(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *arguments]
    subprocess.run(command, check=True)


def contents(archive: Path) -> dict[str, bytes]:
    """Name as installed -> content of a wheel, or of the antlr4 source archive."""
    if archive.suffix == ".gz":
        with tarfile.open(archive) as packed:
            files = {m.name: packed.extractfile(m) for m in packed if m.isfile() and "/src/antlr4/" in m.name}
            return {name.split("/src/")[1]: file.read() for name, file in files.items() if file is not None}
    with zipfile.ZipFile(archive) as packed_wheel:
        return {
            name: packed_wheel.read(name)
            for name in packed_wheel.namelist()
            if not name.endswith("/") and not any(part in name for part in LEFT_OUT)
        }


def for_one_gpu(library: bytes) -> bytes:
    """CUDA code of other GPUs than ARCHITECTURE's overwritten with zeros, which compress to nothing. The driver looks
    for code of its own GPU by the entries' heads, which stay."""
    content, at = bytearray(library), 0
    while (at := content.find(FATBIN, at)) >= 0:
        version, head, size = struct.unpack_from("<HHQ", content, at + 4)
        if (version, head) != (1, 16) or at + head + size > len(content):
            at += 4
            continue
        entry, end = at + head, at + head + size
        while entry + 64 <= end:
            length, payload = struct.unpack_from("<IQ", content, entry + 4)
            (architecture,) = struct.unpack_from("<I", content, entry + 28)
            if not payload or entry + length + payload > end:
                raise SystemExit(f"error: {PROVIDER}: CUDA code that is not laid out as expected at byte {entry}")
            if architecture != ARCHITECTURE:
                content[entry + length : entry + length + payload] = bytes(payload)
            entry += length + payload
        at = end
    return bytes(content)


def compress(files: dict[str, bytes]) -> bytes:
    """As .tar.xz, which Python reads without further packages."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, BytesIO(content))
    if tool := shutil.which("xz"):
        return subprocess.run([tool, "-6", "-T0", "-c"], input=packed.getvalue(), stdout=-1, check=True).stdout
    return lzma.compress(packed.getvalue(), preset=6)


def tree_bytes() -> int:
    """What the working tree takes in a copy: files git tracks or does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def cut(archives: dict[str, bytes], out: Path, room: int) -> list[dict[str, Any]]:
    """Write the archives, one after the other, into folders of `room` bytes at most. Returns the parts."""
    parts: list[dict[str, Any]] = []
    number, left = 1, room
    for name, content in archives.items():
        start = 0
        while start < len(content):
            if not left:
                number, left = number + 1, room
            part = content[start : start + left]
            path = out / str(number) / f"{name}.{start:012d}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(part)
            digest = hashlib.sha256(part).hexdigest()
            parts.append({"name": name, "file": path.name, "call": number, "bytes": len(part), "sha256": digest})
            start, left = start + len(part), left - len(part)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".gpu" / "cache", help="where downloads are kept")
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu")
    arguments = parser.parse_args()
    archives = {}
    for name, files in download(arguments.cache).items():
        inside: dict[str, bytes] = {}
        for path in files:
            inside.update(contents(path))
        inside = {at: for_one_gpu(x) if at.endswith(PROVIDER) else x for at, x in inside.items()}
        archives[name] = compress(inside)
        print(f"{name}: {len(archives[name]) / 2**20:.1f} MiB of {sum(map(len, inside.values())) / 2**20:.1f}")
    tree = tree_bytes()
    for old in arguments.out.glob("[0-9]*"):
        shutil.rmtree(old)
    total = sum(map(len, archives.values()))
    calls = -(-total // (LIMIT - tree - (1 << 20)))
    parts = cut(archives, arguments.out, -(-total // calls))
    whole = {name: {"bytes": len(x), "sha256": hashlib.sha256(x).hexdigest()} for name, x in archives.items()}
    pieces = json.dumps({"tree_bytes": tree, "archives": whole, "parts": parts}, indent=1)
    for folder in sorted(arguments.out.glob("[0-9]*")):
        (folder / "pieces.json").write_text(pieces)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f".gpu/{folder.name}: {size / 2**20:.1f} MiB, with the tree {(size + tree) / 2**20:.1f} MiB")
        if size + tree > LIMIT:
            raise SystemExit(f"error: .gpu/{folder.name} and the tree are more than {LIMIT >> 20} MiB")


if __name__ == "__main__":
    main()
