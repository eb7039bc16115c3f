"""Precision in the ONNX file: typed FP16, INT8 and FP8 graphs, calibrated on real crops. Needs onnx and onnxruntime."""
