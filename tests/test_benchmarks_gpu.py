"""The benchmark on a GPU, where there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyconv.arrays import gpu_available

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(gpu_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_ends_with_one_line_and_code_2() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"gpu.py: error: `device` \(='cuda'\) needs a GPU, .*\n", done.stderr)
