"""Models for and from other frameworks: PyTorch's modules, ONNX files.

PyTorch and onnx are imported when a function is called, and need not be installed.
"""

from tinyconv.convert.onnx_file import export_onnx
from tinyconv.convert.pytorch import from_torch, to_torch

__all__ = ["export_onnx", "from_torch", "to_torch"]
