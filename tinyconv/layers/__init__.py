"""Layers and losses: objects with parameters and state, thin wrappers of `tinyconv.functional`."""

from typing import TYPE_CHECKING

from tinyconv.layers.activation import *
from tinyconv.layers.attributes import *
from tinyconv.layers.branches import *
from tinyconv.layers.conv import *
from tinyconv.layers.dropout import *
from tinyconv.layers.layer import *
from tinyconv.layers.linear import *
from tinyconv.layers.loss import *
from tinyconv.layers.norm import *
from tinyconv.layers.pad import *
from tinyconv.layers.pool import *
from tinyconv.layers.sequential import *
from tinyconv.layers.shape import *
from tinyconv.layers.shared import *
from tinyconv.layers.unfold import *

if not TYPE_CHECKING:  # a type checker knows the names that stars import
    __all__ = [name for name, own in vars().items() if getattr(own, "__module__", "").startswith(__name__)]
