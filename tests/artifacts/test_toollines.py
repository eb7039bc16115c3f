"""Lines for trtexec and Polygraphy: the shapes of the engine at hand, in options that the tools have."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from host_tensorrt import write_engine
from label_data import ModelWriter
from mal_trt.artifacts.manifest import read_manifest
from mal_trt.artifacts.toollines import tool_lines
from mal_trt.cli import app
from tiny_model import SIDE

# Of trtexec, from the documentation of TensorRT 10.
TRTEXEC = {"loadEngine", "shapes", "useProfile", "onnx", "stronglyTyped", "noTF32", "minShapes", "optShapes"}
TRTEXEC |= {"maxShapes", "saveEngine"}


def test_one_profile(tiny_model: ModelWriter, tmp_path: Path) -> None:
    engine = write_engine(tiny_model(head="large"), tmp_path / "m.engine", (1, 2, 6))
    lines = tool_lines(engine, read_manifest(engine))
    assert lines["time it"] == f"trtexec --loadEngine={engine} --shapes=image:2x3x{SIDE}x{SIDE}"
    assert shlex.split(lines["run it"])[-2:] == ["--input-shapes", f"image:[2,3,{SIDE},{SIDE}]"]
    build = shlex.split(lines["build it without mal-trt"])
    assert f"--onnx={tmp_path / 'tiny.onnx'}" in build and f"--saveEngine={engine}" in build
    shapes = [f"--{name}Shapes=image:{n}x3x{SIDE}x{SIDE}" for name, n in (("min", 1), ("opt", 2), ("max", 6))]
    assert [word for word in build if "Shapes" in word] == shapes


def test_three_profiles(tiny_model: ModelWriter, tmp_path: Path) -> None:
    engine = write_engine(tiny_model(), tmp_path / "m.engine")
    lines = tool_lines(engine, read_manifest(engine))
    assert lines["time it"].endswith(f"--shapes=image:2x3x{SIDE}x{SIDE},head_grid:1x1x8x8 --useProfile=2")
    assert lines["run it"].endswith("'head_grid:[1,1,8,8]' --optimization-profile 2")
    assert "build it without mal-trt" not in lines


@pytest.mark.parametrize("head", ["large", "dynamic"])
@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_options_exist(tiny_model: ModelWriter, tmp_path: Path, flavor: str, head: str) -> None:
    engine = write_engine(tiny_model(head=head), tmp_path / "m.engine", flavor=flavor)
    for line in tool_lines(engine, read_manifest(engine)).values():
        words = [word for word in shlex.split(line) if not word.startswith("POLYGRAPHY_USE_TENSORRT_RTX=")]
        if words[0] != "polygraphy":
            assert words[0] == {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}[flavor]
            assert {word.split("=")[0].removeprefix("--") for word in words[1:]} <= TRTEXEC


@pytest.mark.parametrize("head", ["large", "dynamic"])
def test_polygraphy_takes_its_lines(tiny_model: ModelWriter, tmp_path: Path, head: str) -> None:
    """Polygraphy itself parses them, and writes the script that it would run."""
    pytest.importorskip("polygraphy")
    engine = write_engine(tiny_model(head=head), tmp_path / "m.engine")
    words = shlex.split(tool_lines(engine, read_manifest(engine))["run it"])[1:]
    code = "import sys; from polygraphy.tools import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *words, "--gen-script", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert f"add('image', None, [2, 3, {SIDE}, {SIDE}])" in done.stdout.replace(" shape=", " ")


def test_inspect_prints_them(tiny_model: ModelWriter, tmp_path: Path) -> None:
    engine = write_engine(tiny_model(head="large"), tmp_path / "my engine.engine")
    shown = CliRunner().invoke(app, ["inspect", str(engine)])
    assert shown.exit_code == 0, shown.output
    tools = tool_lines(engine, read_manifest(engine))
    assert f"tools:\n  time it: {tools['time it']}\n" in shown.stdout
    assert shlex.split(tools["time it"])[1] == f"--loadEngine={engine}", "a blank in the name is quoted"
    document = json.loads(CliRunner().invoke(app, ["inspect", "--json", str(engine)]).stdout)["result"]
    assert document["tools"] == tools
    manifest = replace(read_manifest(engine), flavor="tensorrt-rtx")
    assert tool_lines(engine, manifest)["run it"].startswith("POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run ")
