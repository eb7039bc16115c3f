"""What specs say to label and evaluate: TAO's layouts since 4.0 and the data services' one; what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("omegaconf")

from mal_trt.artifacts.checkpoints import Choice
from mal_trt.base.errors import InputError
from mal_trt.training.spec_use import SpecUse, Verb, read_use

Use = Callable[..., SpecUse]
# The sample of TAO's documentation, 4.0 to 5.2: one checkpoint for every verb, an absolute name for the labels.
OLD = """\
gpus: [0, 1]
strategy: 'ddp_sharded'
results_dir: 'out'
checkpoint: 'base.pth'
dataset: {val_ann_path: 'val.json', val_img_dir: 'pictures', load_mask: True, crop_size: 512}
inference:
  ann_path: 'boxes.json'
  img_dir: 'pictures'
  label_dump_path: '/elsewhere/sample_output.json'
model: {arch: 'vit-mae-base/16'}
train: {num_epochs: 10, save_every_k_epoch: 2, val_interval: 5, batch_size: 4, use_amp: True}
"""
NEW = """\
results_dir: 'out'
dataset: {val_ann_path: 'val.json', val_img_dir: 'pictures', crop_size: 384}
model: {arch: 'vit-mae-base/16', not_adjust_scale: True}
train: {mask_thres: [0.1, 0.2, 0.3], test_margin_rate: [0.4, 0.4], pretrained_model_path: 'start.pth'}
inference:
  checkpoint: 'base.pth'
  ann_path: 'boxes.json'
  img_dir: 'pictures'
  batch_size: 8
  load_mask: True
  num_gpus: 1
evaluate:
  checkpoint: 'other.pth'
  batch_size: 2
  use_mixed_model_test: True
  use_teacher_test: True
  use_flip_test: True
"""
SERVICES = """\
gpu_ids: [0]
num_gpus: 1
batch_size: 4
num_workers: 8
autolabel_type: 'mal'
mal:
  checkpoint: 'base.pth'
  dataset: {crop_size: 64}
  inference:
    ann_path: 'boxes.json'
    img_dir: 'pictures'
    label_dump_path: 'labels.json'
    batch_size: 2
  model: {arch: 'vit-mae-base/16'}
grounding_dino: {checkpoint: 'other.pth', anything: [1]}
results_dir: 'out'
"""


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for name in ("boxes.json", "val.json", "base.pth", "other.pth", "start.pth"):
        Path(name).touch()

    def read(text: str, verb: Verb = "inference", *overrides: str) -> SpecUse:
        Path("spec.yaml").write_text(text)
        return read_use(Path("spec.yaml"), overrides, verb)

    return read


def test_the_layout_of_4_0(use: Use) -> None:
    spec = use(OLD)
    assert (spec.model(), spec.boxes(), spec.images()) == ("base.pth", Path("boxes.json"), Path("pictures"))
    assert spec.labels() == Path("/elsewhere/sample_output.json")
    assert (spec.batch, spec.thresholds, spec.weights, spec.flip, spec.iou) == (None, None, None, False, False)
    assert spec.choice == Choice(input_size=512)
    judged = use(OLD, "evaluate")
    assert (judged.model(), judged.boxes()) == ("base.pth", Path("val.json"))
    assert judged.folder() == Path("out/evaluate")


def test_a_checkpoint_for_each_verb(use: Use) -> None:
    spec = use(NEW)
    assert (spec.model(), spec.batch, spec.iou) == ("base.pth", 8, True)
    assert spec.labels() == Path("out/inference/instances_val2017_mal.json")
    assert spec.thresholds == (0.1, 0.2, 0.3)
    assert spec.choice == Choice(input_size=384, margin=0.4, head="fixed")
    assert (spec.weights, spec.flip) == (None, False), "TAO's inference knows neither"
    judged = use(NEW, "evaluate")
    assert (judged.model(), judged.batch, judged.flip) == ("other.pth", 2, True)
    assert judged.weights == "mixed", "it wins over the teacher"
    assert judged.choice.weights == "mixed"
    teacher = use(NEW, "evaluate", "evaluate.use_mixed_model_test=false")
    assert (teacher.weights, teacher.choice.weights) == ("teacher", "teacher")


def test_what_training_starts_from_is_no_model(use: Use) -> None:
    with pytest.raises(InputError, match=r"spec.yaml: nothing says the model: give inference.checkpoint, or --model"):
        use(NEW.replace("checkpoint: 'base.pth'", "checkpoint: ???")).model()


def test_the_form_of_the_data_services(use: Use) -> None:
    spec = use(SERVICES)
    assert (spec.model(), spec.boxes(), spec.batch) == ("base.pth", Path("boxes.json"), 4)
    assert spec.labels() == Path("out/labels.json") and spec.choice.input_size == 64
    changed = use(SERVICES, "inference", "mal.inference.label_dump_path=other.json", "results_dir=there")
    assert changed.labels() == Path("there/other.json")


def test_interpolation_and_overrides(use: Use) -> None:
    text = OLD.replace("'/elsewhere/sample_output.json'", "${results_dir}-labels.json")
    assert use(text).labels() == Path("out/inference/out-labels.json")
    assert use(text, "inference", "results_dir=there").labels() == Path("there/inference/there-labels.json")
    assert use(text, "inference", "inference.results_dir=here").labels() == Path("here/out-labels.json")


def test_an_engine_in_the_place_of_a_checkpoint(use: Use) -> None:
    Path("base.engine").touch()
    assert use("inference: {trt_engine: base.engine}").model() == "base.engine"
    assert use("inference: {checkpoint: bundled}").model() == "bundled"


@pytest.mark.parametrize(
    ("text", "ask", "message"),
    [
        (OLD.replace("'boxes.json'", "'no.json'"), "boxes", "spec.yaml:7: inference.ann_path: no.json: no such file"),
        (
            OLD.replace("img_dir: 'pictures'\n", "img_dir: 'no'\n"),
            "images",
            "spec.yaml:8: inference.img_dir: no: no such",
        ),
        (OLD.replace("base.pth", "no.pth"), "model", "spec.yaml:4: checkpoint: no.pth: no such file"),
        (SERVICES.replace("'base.pth'", "'no.pth'"), "model", "spec.yaml:7: mal.checkpoint: no.pth: no such file"),
        ("inference: {img_dir: pictures}", "boxes", "nothing says the boxes: give inference.ann_path, or --boxes"),
        (OLD.replace("ann_path: 'boxes.json'", "annpath: 1"), "", "spec.yaml:7: inference.annpath: no such field; did"),
        (OLD + "evaluate:\n  batch_size: many\n", "", "spec.yaml:13: evaluate.batch_size: Value 'many'"),
        ("inference:\n  batch_size: 0\n", "batch", "spec.yaml:2: inference.batch_size: 0; expected 1 or more"),
        ("inference:\n  load_mask: [1]\n", "", "spec.yaml:2: inference.load_mask: "),
        ("model:\n  mask_scale_ratio_pre: 2\n", "choice", "spec.yaml:2: model.mask_scale_ratio_pre: 2; only networks"),
        ("model:\n  backbone: resnet_50\n", "", "spec.yaml:2: model.backbone: no such field"),
        ("dataset:\n  train_data_sources: []\n", "", "spec.yaml:2: dataset.train_data_sources: no such field"),
        (
            "results_dir: r\nautolabel_type: grounding_dino\n",
            "",
            "spec.yaml:2: autolabel_type: 'grounding_dino'; mal-trt",
        ),
        (SERVICES.replace("num_workers", "workers"), "", "spec.yaml:4: workers: no such field"),
        (SERVICES.replace("crop_size", "cropsize"), "", "spec.yaml:8: mal.dataset.cropsize: no such field"),
        ("inference:\n  annotations: ???\n", "", "spec.yaml:2: inference.annotations: no such field"),
    ],
)
def test_errors_name_file_line_and_field(use: Use, text: str, ask: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        asked = getattr(use(text), ask or "where")
        asked()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n", "3\n", json.dumps([{"a": 1}]), "inference: {ann_path: 'a\n"])
def test_what_is_no_spec(use: Use, text: str) -> None:
    with pytest.raises(InputError, match=r"^spec.yaml(:\d+)?: not "):
        use(text)


def test_the_arch_must_be_the_models(use: Use) -> None:
    spec = use(OLD)
    spec.check_arch("vit-mae-base/16")
    spec.check_arch("vit-deit-base/16")
    with pytest.raises(InputError, match=r"spec.yaml:10: model.arch: vit-mae-base/16, but the model is a vit-"):
        spec.check_arch("vit-mae-small/16")
    use("results_dir: out").check_arch("mal-lite0")
