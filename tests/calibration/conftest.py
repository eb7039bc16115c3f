"""A small encoder as an ONNX file, whose masks are right, and pictures with boxes to calibrate it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper

from mal_trt.artifacts.contract import METADATA_KEY, Contract

SIDE = 64
WIDTH = 16
BLOCK = "student.backbone.blocks.{}.mlp.fc{}"


def write_encoder(path: Path, outlier: float = 0.0, opset: int = 20, poison: bool = False, steep: float = 8.0) -> Path:
    """Bright patches are the object: conv 4x4, two blocks of LayerNormalization and two Linears, a linear head.

    outlier: what is added to one channel of the second block's input, which per-tensor INT8 cannot hold beside the
    others. poison: the square root of a negative number in block 1 for dark crops, so that real crops give NaN.
    """
    rng = np.random.default_rng(5)
    tensors: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def add(op: str, inputs: list[str], output: str, name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], f"{name}/{op}", **attributes))
        return output

    def weight(name: str, values: np.ndarray) -> str:
        tensors[name] = values.astype(np.float32)
        return name

    patch = rng.normal(0, 0.02, (WIDTH, 3, 4, 4))
    patch[0] = steep / 48
    patch_bias = np.zeros(WIDTH)
    patch_bias[0] = -steep / 2
    add("Cast", ["image"], "pixels", "input", to=TensorProto.FLOAT)
    add("Mul", ["pixels", weight("scale", np.array(1 / 255))], "scaled", "input")
    stem = "student.backbone.patch_embed.proj"
    conv = [weight(f"{stem}.weight", patch), weight(f"{stem}.bias", patch_bias)]
    add("Conv", ["scaled", *conv], "patches", stem, kernel_shape=[4, 4], strides=[4, 4])
    tensors["tokens_shape"] = np.array([0, WIDTH, -1], np.int64)
    add("Reshape", ["patches", "tokens_shape"], "flat", "student.backbone")
    x = add("Transpose", ["flat"], "tokens", "student.backbone", perm=[0, 2, 1])
    for block in (0, 1):
        first, second = BLOCK.format(block, 1), BLOCK.format(block, 2)
        y = x
        if block == 0:
            norm = [weight(f"norm{block}.weight", np.ones(WIDTH)), weight(f"norm{block}.bias", np.zeros(WIDTH))]
            y = add("LayerNormalization", [x, *norm], f"norm{block}", "student.backbone.norm", axis=-1)
        elif outlier:
            shift = np.zeros(WIDTH)
            shift[-1] = outlier
            y = add("Add", [x, weight("shift", shift)], "shifted", "student.backbone")
        elif poison:
            y = add("Sqrt", [x], "roots", "student.backbone.poison")
        into = rng.normal(0, 0.3, (WIDTH, 2 * WIDTH))
        into[-1] = 0  # the outlier itself says nothing
        out = rng.normal(0, 0.1, (2 * WIDTH, WIDTH))
        if block == 1:  # the mask goes through here, as a bright and a dark part
            into[0, :2], out[:2, 0] = (1, -1), (1, -1)
        y = add("MatMul", [y, weight(f"{first}.weight", into)], f"hidden{block}", first)
        y = add("Add", [y, weight(f"{first}.bias", rng.normal(0, 0.1, 2 * WIDTH))], f"biased{block}", first)
        y = add("Relu", [y], f"active{block}", f"student.backbone.blocks.{block}.act")
        y = add("MatMul", [y, weight(f"{second}.weight", out)], f"change{block}", second)
        x = add("Add", [x, y], f"sum{block}", f"student.backbone.blocks.{block}") if block == 0 else y
    head = np.zeros((WIDTH, 1))
    head[0] = 1
    add("MatMul", [x, weight("head.weight", head)], "answers", "student.mask_head.out")
    tensors["map_shape"] = np.array([-1, 1, SIDE // 4, SIDE // 4], np.int64)
    add("Reshape", ["answers", "map_shape"], "logits", "student.mask_head")
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, SIDE // 4, SIDE // 4])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    contract = Contract(
        arch="tiny",
        layout="patch",
        input_size=SIDE,
        adjust_scale=False,
        head="fixed",
        thresholds=(0.5, 0.5, 0.5),
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_pictures(folder: Path, pictures: int = 12, dark: bool = False, masks: bool = False) -> tuple[Path, Path]:
    """Pictures with bright noisy ellipses of three sizes and a COCO document of their boxes (and masks)."""
    images = folder / "pictures"
    images.mkdir(exist_ok=True)
    rng = np.random.default_rng(11)
    records: list[dict[str, Any]] = []
    entries = []
    for number in range(pictures):
        height, width = 200, 320
        pixels = rng.integers(0, 60, (height, width, 3))
        for x, y, w, h in ((10, 10, 24, 28), (50, 8, 70, 60), (140, 30, 150, 140)):
            v, u = np.mgrid[:height, :width]
            inside = ((u - x - w / 2) / (w / 2)) ** 2 + ((v - y - h / 2) / (h / 2)) ** 2 < 1
            pixels[inside] += 150
            record = {"id": len(records) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h]}
            if masks:
                angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
                points = [x + w / 2 + w / 2 * np.cos(angles), y + h / 2 + h / 2 * np.sin(angles)]
                record["segmentation"] = [np.stack(points, 1).ravel().round(2).tolist()]
            records.append(record)
        picture = np.zeros_like(pixels) if dark else pixels
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(images / f"{number}.png")
        entries.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
    boxes = folder / "boxes.json"
    categories = [{"id": 1, "name": "ellipse"}]
    boxes.write_text(json.dumps({"images": entries, "annotations": records, "categories": categories}))
    return images, boxes


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., Path]:
    """Writes the encoder into the test's folder; see `write_encoder`."""
    return lambda **options: write_encoder(tmp_path / "model.onnx", **options)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes pictures and boxes into the test's folder; see `write_pictures`."""
    return lambda **options: write_pictures(tmp_path, **options)
