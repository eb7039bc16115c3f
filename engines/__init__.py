"""ONNX to TensorRT and TensorRT-RTX engines with a manifest. Needs tensorrt or tensorrt-rtx."""
