"""Conversion of models to and from other frameworks: PyTorch's modules, ONNX files.

PyTorch and onnx are imported only when a function needs them.
"""

from tinyconv.convert.onnx_file import export_onnx
from tinyconv.convert.pytorch import from_torch, to_torch

__all__ = ["export_onnx", "from_torch", "to_torch"]
