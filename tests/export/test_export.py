"""Exported files: contract, operators, numbers against PyTorch, and nothing left behind on failure."""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from mal_trt.artifacts.contract import Contract
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.export import ExportReport, export_onnx
from mal_trt.export import export as export_module
from mal_trt.export import parity as parity_module
from mal_trt.export.parity import packaged_crops
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network
from small_checkpoint import SIZE, make

OPERATORS = {
    *("Add", "Cast", "Concat", "Conv", "Div", "Erf", "Expand", "Gather", "Gelu", "Gemm", "InstanceNormalization"),
    *("LayerNormalization", "MatMul", "Mul", "ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Slice", "Softmax"),
    *("Split", "Squeeze", "Transpose", "Unsqueeze"),
}


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)


def torch_logits(network: MALNetwork, image: np.ndarray, area: float) -> np.ndarray:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (image / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        pixels = torch.from_numpy(normalised.astype(np.float32))
        return np.asarray(network(pixels, torch.full((len(image),), area)))


AREAS = {SizeClass.SMALL: 500.0, SizeClass.MEDIUM: 5000.0, SizeClass.LARGE: 50000.0}


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    span = expected.max() - expected.min()
    assert actual.shape == expected.shape and span > 0.01
    assert np.abs(actual - expected).max() <= 1e-4 * span


@pytest.fixture(scope="module", params=["patch", pytest.param("conv_stem", marks=pytest.mark.slow), "hybrid"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportReport, dict[str, MALNetwork]]:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint, networks = make(folder, request.param)
    return export_onnx(checkpoint, folder / "model.onnx"), networks


def test_every_grid_and_batch_matches_pytorch(exported: tuple[ExportReport, dict[str, MALNetwork]]) -> None:
    report, networks = exported
    backend = open_backend(report.path, device="cpu")
    for size, area in AREAS.items():
        for count in (1, 3):
            logits = backend.run(crops(count), size)
            assert_same(logits, torch_logits(networks["student"], crops(count), area))
    backend.close()


def test_graph_and_contract(exported: tuple[ExportReport, dict[str, MALNetwork]]) -> None:
    report, _ = exported
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    inputs = {i.name: i.type.tensor_type for i in model.graph.input}
    assert list(inputs) == ["image", "head_grid"]
    assert all(t.elem_type == onnx.TensorProto.UINT8 for t in inputs.values())
    shape = [d.dim_param or d.dim_value for d in inputs["head_grid"].shape.dim]
    assert shape[:2] == [1, 1] and shape[2] == shape[3] and isinstance(shape[2], str)
    assert [o.name for o in model.graph.output] == ["logits"]

    operators = collections.Counter(node.op_type for node in model.graph.node)
    assert set(operators) <= OPERATORS
    assert operators["LayerNormalization"] == 3 and operators["Softmax"] == 1
    assert not model.functions and [o.version for o in model.opset_import] == [20]
    by_output = {name: node for node in model.graph.node for name in node.output}
    scores = [by_output[node.input[0]] for node in model.graph.node if node.op_type == "Softmax"]
    for matmul in scores:  # softmax(MatMul(Mul(q, scale), k)): one scale, on the queries
        assert matmul.op_type == "MatMul"
        assert by_output[matmul.input[0]].op_type == "Mul"
        assert by_output[matmul.input[1]].op_type == "Transpose"
    first = next(node for node in model.graph.node if "image" in node.input and node.op_type != "Shape")
    assert first.op_type == "Cast"  # a UINT8 input must be consumed by a Cast for TensorRT
    for node in model.graph.node:
        if node.op_type == "Resize":
            options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert options["mode"] == b"linear" and not options.get("antialias", 0)
    assert "student.backbone.blocks.0.mlp.fc1/MatMul" in {node.name for node in model.graph.node}
    assert "student.backbone.blocks.0.mlp.fc1.weight" in {t.name for t in model.graph.initializer}

    document = {p.key: p.value for p in model.metadata_props}
    assert list(document) == ["mal_trt"]
    contract = Contract.from_json(document["mal_trt"], "model")
    assert contract == report.contract
    assert (contract.input_size, contract.head, contract.weights) == (SIZE, "dynamic", "student")
    assert contract.source.endswith(".pth") and len(contract.source_sha256) == 64
    text = report.path.read_bytes()
    for trace_of_this_machine in (b"site-packages", b"stack_trace", os.getcwd().encode()):
        assert trace_of_this_machine not in text


def test_parity_file(exported: tuple[ExportReport, dict[str, MALNetwork]]) -> None:
    report, networks = exported
    assert report.parity_path == report.path.with_name("model.parity.npz") and report.parity.relative <= 1e-4
    with np.load(report.parity_path) as archive:
        image, logits, sizes = archive["image"], archive["logits"], archive["size_classes"]
    assert image.dtype == np.uint8 and image.shape == (4, 3, SIZE, SIZE)
    assert sizes.tolist() == [0, 1, 2] and logits.shape == (3, 4, 1, SIZE // 4, SIZE // 4)
    for row, size in enumerate(sizes):
        assert_same(logits[row], torch_logits(networks["student"], image, AREAS[SizeClass(size)]))


@pytest.mark.parametrize("layout", ["patch", pytest.param("conv_stem", marks=pytest.mark.slow)])
def test_opset_17(layout: str, tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path, layout)
    out = tmp_path / "m.onnx"
    export_onnx(checkpoint, out, opset=17)
    model = onnx.load(out)
    assert [o.version for o in model.opset_import] == [17] and "student.backbone.blocks.0.mlp.fc1/MatMul" in {
        node.name for node in model.graph.node
    }
    backend = open_backend(out, device="cpu")
    for size, area in AREAS.items():
        assert_same(backend.run(crops(2), size), torch_logits(networks["student"], crops(2), area))
    backend.close()


def test_group_normalisation_in_opset_23(tmp_path: Path) -> None:
    """From 21 on PyTorch writes it as one operator, which TensorRT 10.3 does not read."""
    torch.manual_seed(7)
    config = NetworkConfig("mal-nano", crop_size=SIZE, mask_head_hidden_channel=16)
    save_checkpoint(tmp_path / "nano.pth", config, student=build_network(config).state_dict())
    report = export_onnx(tmp_path / "nano.pth", tmp_path / "m.onnx", opset=23, thresholds=0.4, arch="mal-nano")
    assert [o.version for o in onnx.load(report.path).opset_import] == [23]
    assert report.contract.thresholds == (0.4, 0.4, 0.4)
    with pytest.raises(InputError, match=r"--arch mal-edge: .* is a mal-nano; leave --arch out"):
        export_onnx(tmp_path / "nano.pth", tmp_path / "m.onnx", arch="mal-edge")


@pytest.mark.parametrize("options", [{}, {"weights": "mixed", "input_dtype": "float32"}, {"opset": 17}])
def test_half_precision(options: dict[str, Any], tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path)
    out = tmp_path / "m.onnx"
    report = export_onnx(checkpoint, out, precision="fp16", thresholds=[0.5], **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.parity.npz", "patch.pth"]
    assert report.contract.precision == "fp16" and report.half is not None and report.half.agreement["boxes"] == 12
    model = onnx.load(out)
    stored = collections.Counter(t.data_type for t in model.graph.initializer if len(t.dims) > 1)
    assert stored[onnx.TensorProto.FLOAT16] >= 10 and not stored[onnx.TensorProto.FLOAT]
    backend = open_backend(out, device="cpu")
    parts = ("student", "teacher") if "weights" in options else ("student",)
    for part in parts:
        for size, area in AREAS.items():
            expected = torch_logits(networks[part], crops(2), area)
            assert 0 < np.abs(backend.run(crops(2), size, part) - expected).max() < 0.01 * np.ptp(expected)
    backend.close()


@pytest.mark.parametrize("head", ["small", "large"])
def test_baked_head_and_float_input(head: str, tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path)
    out = tmp_path / "m.onnx"
    masks: dict[str, Any] = {"thresholds": [0.2, 0.3, 0.4], "margin": 0.25}
    report = export_onnx(checkpoint, out, head=head, input_dtype="float32", opset=18, **masks)
    assert (report.contract.thresholds, report.contract.margin_rate) == ((0.2, 0.3, 0.4), 0.25)
    session = ort.InferenceSession(out)
    assert [(i.name, i.type) for i in session.get_inputs()] == [("image", "tensor(float)")]
    image = crops(3)
    (logits,) = session.run(None, {"image": image.astype(np.float32)})
    assert_same(logits, torch_logits(networks["student"], image, AREAS[SizeClass[head.upper()]]))
    with np.load(report.parity_path) as archive:
        assert archive["size_classes"].tolist() == [SizeClass[head.upper()]]


@pytest.mark.parametrize("layout", ["patch", "hybrid"])
def test_without_scale_adjustment(layout: str, tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path, layout, adjust_scale=False)
    report = export_onnx(checkpoint, tmp_path / "m.onnx")
    assert report.contract.head == "fixed" and not report.contract.adjust_scale
    backend = open_backend(report.path, device="cpu")
    logits = backend.run(crops(2), SizeClass.SMALL)
    backend.close()
    side = SIZE // 4 if layout == "hybrid" else SIZE // 2
    assert logits.shape == (2, 1, side, side)
    assert_same(logits, torch_logits(networks["student"], crops(2), 1.0))


def test_parity_is_held_to_what_float32_does_itself() -> None:
    """Sums in another order, as on another processor, are no fault; an error of the graph is one."""
    exact = np.random.default_rng(0).normal(0, 2, (2, 1, 8, 8))
    single = (exact + 3e-3).astype(np.float32)
    span = float(np.ptp(exact))
    assert parity_module.TOLERANCE * span < 3e-3
    found = parity_module._judge((exact - 9e-3).astype(np.float32), single, exact, 0.5)
    assert (found.relative, found.float32) == pytest.approx((9e-3 / span, 3e-3 / span), rel=1e-2)
    assert found.pixels == int(((exact > 0) & (exact <= 9e-3)).sum())
    for error in (2e-2, np.nan):
        with pytest.raises(RunError, match=r"float64, PyTorch's own in float32 .* nothing was written"):
            parity_module._judge((exact + error).astype(np.float32), single, exact, 0.5)


@pytest.mark.slow
def test_mixed_and_teacher(tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path)
    report = export_onnx(checkpoint, tmp_path / "mixed.onnx", weights="mixed")
    image = crops(2)
    expected = {part: torch_logits(networks[part], image, 5000.0) for part in networks}
    backend = open_backend(report.path, device="cpu")
    for part, logits in expected.items():
        assert_same(backend.run(image, SizeClass.MEDIUM, part), logits)
    mean = (expected["student"] + expected["teacher"]) / 2
    assert_same(backend.run(image, SizeClass.MEDIUM), mean)
    backend.close()
    with np.load(report.parity_path) as archive:
        assert {"logits", "logits_student", "logits_teacher"} <= set(archive.files)
    teacher = export_onnx(checkpoint, tmp_path / "teacher.onnx", weights="teacher", head="medium")
    backend = open_backend(teacher.path, device="cpu")
    assert_same(backend.run(image, SizeClass.MEDIUM), expected["teacher"])
    backend.close()


def test_another_input_size_resizes_positions(tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path)
    report = export_onnx(checkpoint, tmp_path / "m.onnx", input_size=96, head="medium")
    image = packaged_crops(96)
    backend = open_backend(report.path, device="cpu")
    logits = backend.run(image, SizeClass.MEDIUM)
    backend.close()
    assert_same(logits, torch_logits(networks["student"], image, 5000.0))


@pytest.mark.slow
def test_half_precision_weights(tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path, "hybrid")
    full = export_onnx(checkpoint, tmp_path / "full.onnx")
    half = export_onnx(checkpoint, tmp_path / "half.onnx", fp16_weights=True)
    assert half.file_bytes < 0.65 * full.file_bytes
    assert half.contract.extra == {"fp16_weights": True} and half.contract.precision == "fp32"
    assert half.rounding is not None and 1e-6 < half.rounding < 1e-2 and full.rounding is None
    backend = open_backend(half.path, device="cpu")
    logits = backend.run(crops(2), SizeClass.LARGE)
    backend.close()
    exact = torch_logits(networks["student"], crops(2), 50000.0)
    assert 0 < np.abs(logits - exact).max() < 1e-2 * (exact.max() - exact.min())


@pytest.mark.slow
def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    checkpoint, _ = make(tmp_path)
    files = [export_onnx(checkpoint, tmp_path / f"{i}.onnx").path.read_bytes() for i in range(2)]
    assert files[0] == files[1]


@pytest.mark.slow
def test_tao_file_timm_backbone_and_fixed_head(tmp_path: Path) -> None:
    _, networks = make(tmp_path)
    state = {f"{part}.{k}": v for part in networks for k, v in networks[part].state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "tao.pth")
    report = export_onnx(tmp_path / "tao.pth", tmp_path / "tao.onnx", input_size=SIZE, head="fixed")
    assert report.contract.head == "fixed" and report.contract.layout == "patch"
    config = NetworkConfig("resnet18", crop_size=SIZE, mask_head_hidden_channel=16, mask_head_out_channel=16)
    network = build_network(config).eval()
    save_checkpoint(tmp_path / "r.pth", config, student=network.state_dict())
    report = export_onnx(tmp_path / "r.pth", tmp_path / "r.onnx")
    backend = open_backend(report.path, device="cpu")
    assert_same(backend.run(crops(2), SizeClass.LARGE), torch_logits(network, crops(2), 50000.0))
    backend.close()


def test_parity_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, _ = make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    trace = export_module.trace

    def wrong(*args: Any) -> Any:
        model = trace(*args)
        for tensor in model.graph.initializer:
            if tensor.name == "student.roi_head.mlp2.bias":
                values = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(export_module, "trace", wrong)
    with pytest.raises(RunError, match="parity failed"):
        export_onnx(checkpoint, tmp_path / "m.onnx")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
def test_parity_from_own_pictures(tmp_path: Path) -> None:
    from PIL import Image

    checkpoint, _ = make(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    golden = Path(__file__).parent.parent / "golden"
    Image.open(golden / "photo.png").save(pictures / "cat.png")
    (pictures / "notes.txt").write_text("not a picture")
    report = export_onnx(checkpoint, tmp_path / "m.onnx", parity_images=pictures, head="small")
    with np.load(report.parity_path) as archive:
        assert archive["image"].shape == (1, 3, SIZE, SIZE)
    document = {
        "images": [{"id": "1", "file_name": "cat.png", "width": 320, "height": 213}],
        "annotations": [{"image_id": 1, "bbox": [x, 20, 60, 60]} for x in range(20)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document), "utf-16")  # read as `label` reads it
    report = export_onnx(
        checkpoint,
        tmp_path / "m.onnx",
        parity_images=pictures,
        parity_boxes=tmp_path / "boxes.json",
        head="small",
    )
    with np.load(report.parity_path) as archive:
        assert archive["image"].shape == (8, 3, SIZE, SIZE)
    (pictures / "cat.png").unlink()
    with pytest.raises(InputError, match="no picture could be read"):
        export_onnx(checkpoint, tmp_path / "m.onnx", parity_images=pictures)


def test_packaged_crops_are_photos() -> None:
    """They can be made again from scikit-image's pictures: see the boxes here."""
    data = pytest.importorskip("skimage.data")
    from mal_trt.geometry.crops import make_frame, read_crop

    boxes = {
        "chelsea": (120, 40, 330, 260),
        "coffee": (150, 60, 430, 340),
        "rocket": (290, 40, 370, 330),
        "astronaut": (90, 0, 330, 420),
    }
    for name, stored in zip(boxes, packaged_crops(176), strict=True):
        picture = getattr(data, name)()
        frame = make_frame(boxes[name], picture.shape[1], picture.shape[0], 176)
        made = read_crop(picture, frame.extended, 176).transpose(2, 0, 1)
        difference = np.abs(made.astype(int) - stored)
        assert difference.mean() < 1  # JPEG decoders differ by a level here and there
