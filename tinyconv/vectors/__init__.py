"""Test vectors for whoever writes a kernel in another language."""

from tinyconv.vectors.operators import *
from tinyconv.vectors.write import *
