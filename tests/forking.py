"""Which tests need worker processes."""

import os
import sys

import pytest

__all__ = ["WORKERS", "needs_workers"]

# On macOS NumPy multiplies by Accelerate, which may crash in a forked process.
WORKERS = hasattr(os, "fork") and sys.platform != "darwin"
needs_workers = pytest.mark.skipif(
    not WORKERS, reason="workers need fork, and a BLAS that works in a forked process"
)
