"""The ground floor: devices, the memory format, matrix products, elementwise maths."""

import numpy as np

from tinyconv.arrays.devices import *
from tinyconv.arrays.elementwise import *
from tinyconv.arrays.layout import *
from tinyconv.arrays.products import *

# Allocated and freed again at once. The C library's malloc takes it as a sign that blocks of up to 32 MiB
# come and go, and keeps freed ones for the next array instead of returning them to the system, which
# would hand them out anew page by page: a third of the time of a training step. (malloc's dynamic
# threshold, see M_MMAP_THRESHOLD in mallopt(3); other C libraries take no notice.)
np.empty((32 << 20) - (1 << 16), np.uint8)
