"""export, calibrate and build-engine with -e: which arguments are the model, and what is wrong in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("omegaconf")

from command import call
from mal_trt.base.errors import InputError
from mal_trt.cli.spec_arguments import out_file, read_arguments
from mal_trt.training.spec_use import read_use

VERBS = ("export", "calibrate", "build-engine")
SPEC = "results_dir: out\ncheckpoint: epoch=10.pth\ndataset: {train_ann_path: boxes.json, train_img_dir: a}\n"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    for name in ("epoch=10.pth", "boxes.json", "model.onnx"):
        Path(name).write_bytes(b"")
    for name in ("a", "b"):
        Path(name).mkdir()


def test_a_file_that_is_there_is_the_model() -> None:
    assert read_arguments(["epoch=10.pth"], None, "export") == ("epoch=10.pth", None)
    model, use = read_arguments(["epoch=10.pth", "results_dir=there"], None, "export")
    assert (
        model == "epoch=10.pth"
        and use is not None
        and out_file(None, use, model, ".onnx") == Path("there/export/epoch=10.onnx")
    )
    model, use = read_arguments(["dataset.crop_size=64"], Path("spec.yaml"), "export")
    assert model == "epoch=10.pth" and use is not None and use.choice.input_size == 64


def test_where_results_go() -> None:
    for verb, ending in (("export", ".onnx"), ("calibrate", ".int8.onnx"), ("build-engine", ".engine")):
        use = read_use(Path("spec.yaml"), (), verb)
        assert out_file(None, use, "x/base.pth", ending) == Path("out", verb, f"base{ending}")
        assert Path("out", verb).is_dir() and out_file(Path("mine"), use, "base.pth", ending) == Path("mine")
    use = read_use(Path("spec.yaml"), ["inference.trt_engine=there/e.plan"], "build-engine")
    assert out_file(None, use, "base.pth", ".engine") == Path("there/e.plan")


def test_what_is_calibrated_on() -> None:
    two = "dataset.train_img_dir=[a,b]"
    use = read_use(Path("spec.yaml"), ["dataset.train_ann_path=[boxes.json,boxes.json]", two], "calibrate")
    boxes = Path("boxes.json")
    assert use.sources() == [(boxes, Path("a")), (boxes, Path("b"))] and use.judged_on() is None
    with pytest.raises(InputError, match=r"dataset.train_img_dir: 2 folders of pictures for 1 sets"):
        read_use(Path("spec.yaml"), [two], "calibrate").sources()
    val = ["dataset.val_ann_path=boxes.json", "dataset.train_ann_path=", "inference.ann_path=boxes.json"]
    use = read_use(Path("spec.yaml"), val, "calibrate")
    assert use.sources() == [(boxes, None)] and use.judged_on() == (None, boxes)
    assert read_use(Path("spec.yaml"), [*val, "dataset.load_mask=false"], "calibrate").judged_on() is None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing says the model: give it, or --spec"),
        (["model.onnx", "other.onnx"], "model.onnx other.onnx: one model at a time"),
        (["-e", "spec.yaml", "checkpoint=none.pth"], "checkpoint: none.pth: no such file"),
        (["-e", "spec.yaml", "checkpoint="], "spec.yaml: nothing says the model: give inference.checkpoint"),
        (["-e", "spec.yaml", "dataset.crop=64"], "dataset.crop: no such field"),
    ],
)
def test_bad_input_is_one_line(verb: str, arguments: list[str], message: str) -> None:
    done = call(verb, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["export"], ["calibrate", "--boxes", "boxes.json"], ["build-engine"]])
def test_no_file_to_write(arguments: list[str]) -> None:
    done = call(*arguments, "model.onnx")
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: nothing says the file to write: give --out, such as --out model.")


@pytest.mark.parametrize("verb", ["calibrate", "build-engine"])
def test_a_dry_run_leaves_no_folder(verb: str) -> None:
    """It ends with what is wrong with the model, after the folder of its result was looked at."""
    before = sorted(Path().rglob("*"))
    done = call(verb, "model.onnx", "-e", "spec.yaml", "results_dir=new/place", "--dry-run")
    assert done.exit_code == 2 and "model.onnx" in done.output, done.output
    assert sorted(Path().rglob("*")) == before
