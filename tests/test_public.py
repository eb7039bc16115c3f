"""The front door: what `mal_trt` names is there, hides no submodule, and costs nothing until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import mal_trt

# What a name may ask for beyond the packages that every installation has.
PACKAGES = {
    "calibrate": ("onnx", "ml_dtypes"),
    "CalibrationSettings": ("onnx", "ml_dtypes"),
    "export_onnx": ("torch", "timm", "onnx", "onnxscript"),
}


def python(code: str, folder: Path) -> str:
    """Away from the sources, which Python would import instead of the installed package."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", mal_trt.__all__)
def test_every_name_is_there(name: str) -> None:
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package)
    found = getattr(mal_trt, name)
    assert name == "__version__" or (found.__name__ == name and callable(found))
    assert name in dir(mal_trt)


def test_no_name_is_that_of_a_submodule() -> None:
    assert [name for name in mal_trt.__all__ if find_spec(f"mal_trt.{name}")] == []


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Labeller'"):
        mal_trt.Labeller  # noqa: B018


def test_import_is_cheap(tmp_path: Path) -> None:
    """Beside Python's own modules `import mal_trt` loads its errors and its version, and no package at all."""
    code = "import sys; before = set(sys.modules); import mal_trt; print(sorted(set(sys.modules) - before))"
    loaded = ast.literal_eval(python(code, tmp_path))
    ours = [name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names]
    assert ours == ["mal_trt", "mal_trt.base", "mal_trt.base.errors", "mal_trt.base.version"]


def test_labelling_needs_no_optional_package(tmp_path: Path) -> None:
    heavy = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "tensorrt", "tensorrt_rtx", "matplotlib", "cv2")
    code = "import sys; from mal_trt import Labeler, label, evaluate, compare, benchmark, build_engine; print({} & {})"
    assert python(code.format(set(heavy), "set(sys.modules)"), tmp_path) == "set()\n"


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")  # the first that an export asks for
    for module in [name for name in sys.modules if name.startswith("mal_trt.export")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'^mal_trt.export_onnx needs torch; run: pip install "mal-trt\[export\]"$'):
        mal_trt.export_onnx  # noqa: B018
