"""On which GPUs does an engine of TensorRT-RTX run that was built for others? Tried on the GPU at hand.

    python benchmarks/rtx_targets.py --model tiny.fp16.onnx [--targets SM80,SM89,CURRENT] --json rtx_targets.json

mal-trt refuses engines built for other GPUs; here they are built, loaded and run all the same, with the library's own
messages and the largest difference of the logits from ONNX Runtime's on the CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import save

from mal_trt.artifacts.flavor import Flavor, Messages, open_flavor
from mal_trt.backends import open_backend
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.cuda.open import open_driver
from mal_trt.geometry.boxes import SizeClass

BATCH = 4


def build(flavor: Flavor, logger: Any, model: Path, target: str, side: int) -> bytes | None:
    """The plan for one member of ComputeCapability."""
    trt = flavor.module
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(flavor.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")))
    if not trt.OnnxParser(network, logger).parse_from_file(str(model)):
        return None
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(flavor.member("ComputeCapability", target), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *((n, 3, side, side) for n in (1, BATCH, BATCH)))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)


def run(flavor: Flavor, logger: Any, plan: bytes, driver: Driver, image: np.ndarray, expected: np.ndarray) -> str:
    """What became of it, in words."""
    engine = flavor.module.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return "does not load"
    context = engine.create_execution_context()
    if context is None:
        return "loads, gives no context"
    crops, logits = DeviceBuffer(driver), DeviceBuffer(driver)
    found = np.empty_like(expected)
    stream = driver.create_stream()
    context.set_input_shape("image", image.shape)
    context.set_tensor_address("image", crops.reserve(image.nbytes))
    context.set_tensor_address("logits", logits.reserve(found.nbytes))
    driver.copy_to_device(crops.pointer, np.ascontiguousarray(image), stream)
    if not context.execute_async_v3(stream):
        return "loads, does not run"
    driver.copy_to_host(found, logits.pointer, stream)
    driver.synchronize(stream)
    error = float(np.abs(found - expected).max() / np.ptp(expected))
    return f"runs; logits differ from the CPU's by {error:.1e} of their range at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an ONNX file with a fixed mask head")
    parser.add_argument("--targets", default="SM80,SM89,CURRENT")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    flavor = open_flavor("tensorrt-rtx")
    backend = open_backend(arguments.model, "cpu")
    side = backend.contract.input_size
    image = np.random.default_rng(0).integers(0, 255, (BATCH, 3, side, side), np.uint8)
    expected = backend.run(image, SizeClass.LARGE)
    driver = open_driver()
    answers = []
    for target in arguments.targets.split(","):
        messages, began = Messages(), time.monotonic()
        logger = flavor.logger(messages)
        plan = build(flavor, logger, arguments.model, target, side)
        answer = "does not build"
        if plan is not None:
            try:
                with driver.current():
                    answer = run(flavor, logger, plan, driver, image, expected)
            except CudaError as error:
                answer = str(error)
        said = [text for _, text in messages.all]
        answers.append({"target": target, "answer": answer, "seconds": time.monotonic() - began, "messages": said})
        print(f"{target}: {answer}" + "".join(f"\n  {text}" for text in said))
    save(
        arguments.json,
        {
            "gpu": driver.device.name,
            "compute_capability": ".".join(map(str, driver.device.compute_capability)),
            "version": flavor.version,
            "answers": answers,
        },
    )


if __name__ == "__main__":
    main()
