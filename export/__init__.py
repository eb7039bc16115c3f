"""Checkpoint to ONNX, with a parity check. Needs torch, timm, onnx, onnxscript and onnxruntime."""

from mal_trt.export.export import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
