"""From a checkpoint to a typed ONNX file that ONNX Runtime and TensorRT both run."""
