"""The operations as plain loops, straight from their definitions: slow and obvious.

Nothing here is shared with `tinyconv.functional`; it is the independent oracle of the tests, and a good file
to read first. Shapes are the batched ones, pairs are (height, width), arrays are NumPy's.

>>> import numpy as np
>>> conv2d(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)))
array([[[[ 8., 12.],
         [20., 24.]]]])
"""

from typing import TYPE_CHECKING

from tinyconv.reference.activation import *
from tinyconv.reference.conv import *
from tinyconv.reference.cross_entropy import *
from tinyconv.reference.dropout import *
from tinyconv.reference.linear import *
from tinyconv.reference.loss import *
from tinyconv.reference.norm import *
from tinyconv.reference.pool import *
from tinyconv.reference.shape import *
from tinyconv.reference.unfold import *
from tinyconv.reference.window import *

if not TYPE_CHECKING:  # a type checker knows the names that stars import
    _own = [name for name, own in vars().items() if getattr(own, "__module__", "").startswith(__name__)]
    __all__ = ["Pair", *_own]
