"""The ground floor: devices, the memory format, matrix products, scratch memory."""

from tinyconv.arrays.devices import *
from tinyconv.arrays.elementwise import *
from tinyconv.arrays.layout import *
from tinyconv.arrays.memory import *
from tinyconv.arrays.old import *
from tinyconv.arrays.products import *
