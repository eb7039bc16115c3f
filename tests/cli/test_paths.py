"""Files and URLs as options: a URL arrives as it is, and what cannot be read is one line and exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command import call

EXTRAS = {"serve": "fastapi", "train": "torch", "prune": "torch", "calibrate": "onnx", "export": "torch"}
EXTRAS |= {"build-engine": "tensorrt_rtx"}
URL = "nowhere://host/place"
TRAIN = "train --out run --device cpu --arch mal-nano --min-area 1 --dry-run"
CALIBRATE = "calibrate bundled -o q.onnx"
ENGINE = "build-engine bundled -o e.engine --precision int8"
DATA = "--images pictures --boxes boxes.json"


@pytest.fixture(autouse=True)
def _here(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene)
    monkeypatch.setenv("XDG_CACHE_HOME", str(scene / "cache"))


@pytest.mark.parametrize(
    "words",
    [
        "label --boxes URL",
        "label --boxes boxes.json --images URL",
        "evaluate --annotations URL",
        "evaluate --annotations boxes.json --images URL",
        "compare bundled bundled --annotations URL",
        "compare bundled bundled --boxes URL",
        "compare bundled bundled --boxes boxes.json --images URL",
        "benchmark --annotations URL",
        "benchmark --boxes URL",
        "benchmark --boxes boxes.json --images URL",
        "report URL",
        "report boxes.json --images URL",
        "convert URL -o new.json",
        "convert boxes.json -o new.json --images URL",
        "serve --port 0 --boxes URL",
        "serve --port 0 --images URL",
        "export bundled -o h.onnx --precision fp16 --parity-images pictures --parity-boxes URL",
        "export bundled -o h.onnx --precision fp16 --parity-images URL --parity-boxes boxes.json",
        f"{CALIBRATE} --boxes URL",
        f"{CALIBRATE} --boxes boxes.json --images URL",
        f"{CALIBRATE} {DATA} --annotations URL",
        f"{ENGINE} --boxes URL",
        f"{ENGINE} --boxes boxes.json --images URL",
        "prune bundled -o p.pth --boxes URL",
        "prune bundled -o p.pth --boxes boxes.json --images URL",
        f"{TRAIN} --boxes URL",
        f"{TRAIN} --boxes boxes.json --images URL",
        f"{TRAIN} {DATA} --val-boxes URL",
        f"{TRAIN} {DATA} --val-boxes boxes.json --val-images URL",
    ],
)
def test_urls_arrive_whole(words: str) -> None:
    pytest.importorskip(EXTRAS.get(words.split()[0], "numpy"))
    done = call(*words.replace("URL", URL).split())
    assert done.exit_code in (1, 2) and f"error: {URL}: " in done.stderr, done.output


KINDS = ("missing", "folder", "pipe", "empty", "name")
READ = (
    "label --boxes FILE.json",
    "label --boxes boxes.json --model FILE.onnx",
    "label --boxes boxes.json --model FILE.engine",
    "evaluate --annotations boxes.json --labels FILE.json",
    "evaluate --annotations boxes.json --points FILE.json",
    "inspect FILE.onnx",
    "inspect FILE.pth",
    "report FILE.json",
    "convert FILE.json -o new.json",
    "package triton FILE.onnx -o new",
    "export FILE.pth -o new.onnx",
    "export FILE.onnx -o new.onnx --precision fp16",
    f"calibrate FILE.onnx -o new.onnx {DATA}",
    f"prune FILE.pth -o new.pth {DATA}",
    f"{TRAIN} {DATA} --from FILE.pth",
    f"{TRAIN} {DATA} --from FILE.onnx",
    f"{TRAIN} {DATA} --recipe small --priors FILE.npz",
    f"{TRAIN} {DATA} -e FILE.yaml",
)
EMPTY_SPEC = (f"{TRAIN} {DATA} -e FILE.yaml", "empty")  # says nothing, as it may


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize(
    ("words", "kind"), [pair for words in READ for kind in KINDS if (pair := (words, kind)) != EMPTY_SPEC]
)
def test_what_cannot_be_read_is_one_line(words: str, kind: str) -> None:
    pytest.importorskip("torch" if ".pth" in words else EXTRAS.get(words.split()[0], "numpy"))
    for name in ("a.json", "a.onnx", "a.engine", "a.pth", "a.npz", "a.yaml"):
        if kind == "folder":
            os.mkdir(name)
        elif kind == "pipe":
            os.mkfifo(name)
        elif kind == "empty":
            Path(name).touch()
    done = call(*words.replace("FILE", "x" * 300 if kind == "name" else "a").split())
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.count("error: ") == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr


@pytest.mark.parametrize(
    "words", ["evaluate --annotations boxes.json --json-out", "convert boxes.json -o", "report boxes.json -o"]
)
def test_names_that_no_file_can_have(words: str) -> None:
    done = call(*words.split(), "x" * 300, "--images", "pictures")
    assert done.exit_code == 2 and "ile name too long" in done.stderr and done.stderr.count("\n") == 1
