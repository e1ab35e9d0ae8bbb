"""Layers and losses: objects with parameters and state, thin over `tinyconv.functional`."""

from tinyconv.layers.activation import ReLU
from tinyconv.layers.conv import Conv2d
from tinyconv.layers.dropout import Dropout
from tinyconv.layers.layer import Layer
from tinyconv.layers.linear import Linear
from tinyconv.layers.loss import CrossEntropyLoss, Loss, MSELoss
from tinyconv.layers.norm import BatchNorm2d
from tinyconv.layers.pool import MaxPool2d
from tinyconv.layers.sequential import Sequential
from tinyconv.layers.shape import Flatten
from tinyconv.layers.unfold import Fold, Unfold

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Fold",
    "Layer",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "ReLU",
    "Sequential",
    "Unfold",
]
