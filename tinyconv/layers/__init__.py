"""Layers and losses: objects with parameters and state, thin over `tinyconv.functional`."""

from tinyconv.layers.activation import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinyconv.layers.attributes import (
    Buffer,
    Parameter,
)
from tinyconv.layers.conv import (
    Conv1d,
    Conv2d,
    ConvTranspose2d,
)
from tinyconv.layers.dropout import (
    Dropout,
    Dropout2d,
)
from tinyconv.layers.layer import (
    Layer,
)
from tinyconv.layers.linear import (
    Linear,
)
from tinyconv.layers.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from tinyconv.layers.norm import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    LayerNorm,
)
from tinyconv.layers.pad import (
    CircularPad2d,
    ConstantPad2d,
    ReflectionPad2d,
    ReplicationPad2d,
    ZeroPad2d,
)
from tinyconv.layers.pool import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    MaxPool2d,
    MaxUnpool2d,
)
from tinyconv.layers.residual import (
    Residual,
)
from tinyconv.layers.sequential import (
    Sequential,
)
from tinyconv.layers.shape import (
    Flatten,
    Unflatten,
    Upsample,
)
from tinyconv.layers.unfold import (
    Fold,
    Unfold,
)

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "CircularPad2d",
    "ConstantPad2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout2d",
    "ELU",
    "Flatten",
    "Fold",
    "GELU",
    "GroupNorm",
    "L1Loss",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "MaxUnpool2d",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "ReflectionPad2d",
    "ReplicationPad2d",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "Unflatten",
    "Unfold",
    "Upsample",
    "ZeroPad2d",
]
