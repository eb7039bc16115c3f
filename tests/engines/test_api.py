"""API drift: every name of TensorRT's that this project uses, looked up in the real bindings of several versions.

The bindings are small wheels; the libraries they need are played by stubs compiled here, so nothing is ever called.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mal_trt.artifacts.flavor import API, MORE, open_flavor
from mal_trt.base.errors import RunError

ROOT = Path(__file__).parents[2]
VERSIONS = {"10.3.0": "tensorrt-cu12-bindings", "10.16.1.11": "tensorrt-cu13-bindings"}
VERSIONS |= {"11.4.0.106": "tensorrt-cu13-bindings"}
SYMBOLS = (
    *(f"create{name}_INTERNAL" for name in ("InferBuilder", "InferRefitter", "InferRuntime")),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins"),
)
LOOK_UP = """
import importlib.util, json, sys
from mal_trt.artifacts import flavor
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
library = flavor.Flavor("tensorrt", sys.argv[2], module)
found = flavor.missing(library)
flavor.API = {**flavor.API, "Builder": ("max_workspace_size",)}  # gone since TensorRT 10
print(json.dumps([found, flavor.missing(library)]))
"""


def bindings(version: str, config: pytest.Config) -> Path:
    """The bindings' extension module of a version, from the registry or an earlier run."""
    if not hasattr(config, "cache"):
        pytest.skip("keeps what it downloads in pytest's cache, which is switched off")
    folder = Path(config.cache.mkdir(f"tensorrt-bindings-{version}"))  # type: ignore[union-attr]
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}-"
    if not any(tag in wheel.name for wheel in folder.glob("*.whl")):
        wanted = f"{VERSIONS[version]}=={version}"
        command = ["pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "0", "--timeout", "20"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "-q", "-d", str(folder), wanted], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"{wanted} cannot be downloaded: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    wheel = next(wheel for wheel in folder.glob("*.whl") if tag in wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".so") and "/tensorrt" in n)
        return Path(archive.extract(name, folder))


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="Linux x86-64 wheels")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists(version: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to compile the stubs")
    extension = bindings(version, pytestconfig)
    (tmp_path / "stub.c").write_text("".join(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        library = f"lib{name}.so.{version.split('.')[0]}"
        stub = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(tmp_path / library)]
        subprocess.run([*stub, str(tmp_path / "stub.c")], check=True)
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP, str(extension), version],
        cwd=tmp_path,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    missing, with_a_name_that_is_gone = json.loads(done.stdout)
    assert missing == []
    assert with_a_name_that_is_gone == ["Builder.max_workspace_size"]


def test_the_table_is_what_the_code_uses() -> None:
    """No name of the library's in the code that the table lacks, and none in the table that no code uses."""
    try:
        library = open_flavor("tensorrt-rtx").module
    except RunError as error:
        pytest.skip(str(error))
    files = [
        *(ROOT / "engines").glob("*.py"),
        ROOT / "mal_trt" / "artifacts" / "flavor.py",
        *ROOT.glob("mal_trt/backends/tensorrt*.py"),
    ]
    attributes: set[str] = set()
    words: set[str] = set()
    for file in files:
        tree = ast.parse(file.read_text())
        tables = [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") in ("API", "MORE")
        ]
        skipped = {id(node) for table in tables for node in ast.walk(table)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.keyword):
                words.add(node.arg or "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                words.add(node.value)
    table = {name for names in (API, MORE["tensorrt-rtx"]) for members in names.values() for name in members}
    known = {name for owner in (*API, *MORE["tensorrt-rtx"]) for name in vars(getattr(library, owner))}
    # Names that other objects in these files have too.
    ours = {"name", "value", "stop", "network", "builder", "logger", "flags", "node", "update", "engine", "itemsize"}
    assert {name for name in attributes & known if not name.startswith("_")} - table - ours == set()
    used = attributes | words
    targets = {name for name in table if name.startswith("SM")}  # put together from numbers
    assert table - used - targets == set()
