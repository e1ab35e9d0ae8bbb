"""Devices, the memory format, matrix products, elementwise maths and threads, which all else builds on."""

import numpy as np

from tinyconv.arrays.devices import *
from tinyconv.arrays.elementwise import *
from tinyconv.arrays.layout import *
from tinyconv.arrays.parallel import *
from tinyconv.arrays.products import *
from tinyconv.arrays.threads import *

# Allocated and freed at once. This raises the dynamic threshold of the C library's malloc: it keeps freed
# blocks of up to 32 MiB for the next array instead of returning them to the system, which would provide them
# again page by page, in a third of the time of a training step. (See M_MMAP_THRESHOLD in mallopt(3); other C
# libraries are not affected.)
np.empty((32 << 20) - (1 << 16), np.uint8)
