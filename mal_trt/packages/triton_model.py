"""The Python model inside Triton: an encoded picture and boxes in, run lengths out. Its repository is `triton`.

Imported by Triton's Python backend alone, which brings `triton_python_backend_utils`.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from mal_trt.artifacts.contract import Contract
from mal_trt.backends.signature import check_image, output_name, output_names
from mal_trt.base.errors import InputError, MalTrtError, NanLogits, RunError
from mal_trt.formats.images import ImageProblem, read_picture
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.labeler import Labeler


class MalLabeler:
    """Triton's `TritonPythonModel`, but for the folder that it lies in.

    Inputs of a request: `image`, uint8 [n], the bytes of a JPEG, PNG or other file; `boxes`, float64 [N,4], XYXY pixels
    of the picture, half-open. Outputs: `rle`, N strings of JSON {"size": [height, width], "counts": ...} as COCO writes
    it; `quality`, float32 [N], see `geometry.quality.soft_iou`. A request that cannot be used gets its own error.
    """

    folder: Path

    def initialize(self, args: dict[str, str]) -> None:
        """Called once, before the first request."""
        given = json.loads(args["model_config"]).get("parameters", {})
        self._given = {name: entry["string_value"] for name, entry in given.items()}
        path = self.folder / "contract.json"
        self._contract = Contract.from_json(path.read_text(encoding="utf-8"), str(path))
        self._labeler: Labeler | None = None  # other models can be called from `execute` alone

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer to each request, in their order."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Called when the model is unloaded."""
        if self._labeler is not None:
            self._labeler.close()

    def _answer(self, request: Any) -> Any:
        image, boxes = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("image", "boxes"))
        try:
            result = self._open()(_decoded(image), boxes)
        except MalTrtError as error:
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
        rle = np.array([json.dumps(entry) for entry in result.rle], np.object_)
        quality = np.array(result.quality, np.float32)
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor("rle", rle), pb_utils.Tensor("quality", quality)]
        )

    def _open(self) -> Labeler:
        if self._labeler is None:
            network = ServedNetwork(self._given["crops_model"], self._contract)
            self._labeler = Labeler(network, batch=int(self._given["batch"]), crops="cpu")
        return self._labeler


class ServedNetwork:
    """A model of the same server that turns crops into logits. See `Backend` for the interface."""

    def __init__(self, name: str, contract: Contract) -> None:
        self._name, self.contract = name, contract
        self.provider = f"Triton ({name})"
        self.outputs = output_names(contract)
        self.precision, self.notes = contract.precision, list[str]()

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        check_image(image, self.contract, size)
        tensors = {"image": np.ascontiguousarray(image, dtype=self.contract.input_dtype)}
        if self.contract.head == "dynamic":
            grid = self.contract.grid(size)
            tensors["head_grid"] = np.zeros((1, 1, grid, grid), np.uint8)
        output = output_name(weights, self.contract, self.outputs, self._name)
        response = pb_utils.InferenceRequest(
            model_name=self._name,
            requested_output_names=[output],
            inputs=[pb_utils.Tensor(name, value) for name, value in tensors.items()],
            # A plan's logits would stay on the GPU, where NumPy cannot read them.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise RunError(f"{self._name}: {response.error().message()}")
        logits = np.asarray(pb_utils.get_output_tensor_by_name(response, output).as_numpy(), np.float32)
        if np.isnan(logits).any():
            raise NanLogits(f"{self._name}: the model gave NaN logits; export it with --precision fp32")
        return logits

    def close(self) -> None:
        """See `Backend.close`: the server owns the model."""


def _decoded(image: np.ndarray) -> np.ndarray:
    """RGB uint8 [H,W,3] of a file's bytes."""
    try:
        return read_picture(BytesIO(image.tobytes()))
    except ImageProblem as problem:
        raise InputError(f"image: {problem}") from None
