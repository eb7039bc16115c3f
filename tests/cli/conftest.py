"""A model made here, and a picture with a box that it labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal_trt.artifacts.contract import METADATA_KEY, Contract

SIDE = 64


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that calls every bright pixel the object."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    contract = Contract(
        arch="toy",
        layout="patch",
        input_size=SIDE,
        input_dtype="uint8",
        adjust_scale=False,
        head="fixed",
        precision="fp32",
        weights="student",
        source="toy.pth",
        source_sha256="0" * 64,
        producer="test",
    )
    values = {"axes": [1], "half": [128.0], "wide": [16.0]}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["grey"], keepdims=1),
            helper.make_node("AveragePool", ["grey"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Sub", ["small", "half"], ["signed"]),
            helper.make_node("Div", ["signed", "wide"], ["logits"]),
        ],
        "bright",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1, SIDE // 4, SIDE // 4])],
        [
            onnx.numpy_helper.from_array(np.array(v, np.int64 if k == "axes" else np.float32), k)
            for k, v in values.items()
        ],
    )
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(document, {METADATA_KEY: contract.to_json()})
    path = tmp_path_factory.mktemp("model") / "bright.onnx"
    onnx.save(document, path)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """pictures/a.png: a white 40x30 block at (20, 10) on black; boxes.json: its box, a NaN box, its mask."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[10:40, 20:60] = 255
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    block = [[20, 10, 60, 10, 60, 40, 20, 40]]
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 6, 48, 38], "segmentation": block}
    bad = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, -5, 5]}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "block"}],
        "annotations": [good],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    (tmp_path / "bad.json").write_text(json.dumps({**document, "annotations": [good, bad]}))
    return tmp_path
