"""tinyconv: a deep-learning micro-framework with hand-written gradients, in nothing but NumPy.

>>> import numpy as np
>>> import tinyconv as tc
>>> model = tc.Sequential(tc.Conv2d(1, 4, 3), tc.ReLU(), tc.Flatten(), tc.Linear(4 * 26 * 26, 10))
>>> criterion = tc.CrossEntropyLoss()
>>> loss = criterion(model(np.zeros((8, 1, 28, 28), np.float32)), np.arange(8))
>>> grad_images = model.backward(criterion.backward())
>>> grad_images.shape, list(model.grads)
((8, 1, 28, 28), ['0.weight', '0.bias', '3.weight', '3.bias'])
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv import functional, gradients, layers, models, optim
from tinyconv import functional as F
from tinyconv.gradients.gradcheck import gradcheck
from tinyconv.layers import *

if TYPE_CHECKING:
    from tinyconv import convert, data, plots, reference, testing, training, vectors
    from tinyconv.convert import export_onnx, from_torch, to_torch
    from tinyconv.gradients.diagnose import diagnose
    from tinyconv.gradients.second_order import (
        GradientLayer,
        GradientStep,
        Objective,
        hessian_operator,
        hessian_vector_product,
    )
    from tinyconv.training import Trainer, load_weights, save_weights

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
    "F",
    "Flatten",
    "Fold",
    "GELU",
    "GradientLayer",
    "GradientStep",
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
    "Objective",
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
    "Trainer",
    "Unflatten",
    "Unfold",
    "Upsample",
    "ZeroPad2d",
    "convert",
    "data",
    "diagnose",
    "export_onnx",
    "from_torch",
    "functional",
    "gradcheck",
    "gradients",
    "hessian_operator",
    "hessian_vector_product",
    "layers",
    "load_weights",
    "models",
    "optim",
    "plots",
    "reference",
    "save_weights",
    "testing",
    "to_torch",
    "training",
    "vectors",
]

# Imported when they are first used, as importing them takes longer than all the rest.
_LATER = {
    "convert": ("export_onnx", "from_torch", "to_torch"),
    "data": (),
    "gradients.diagnose": ("diagnose",),
    "plots": (),
    "reference": (),
    "testing": (),
    "gradients.second_order": (
        "GradientLayer",
        "GradientStep",
        "Objective",
        "hessian_operator",
        "hessian_vector_product",
    ),
    "training": ("Trainer", "load_weights", "save_weights"),
    "vectors": (),
}

if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> Any:
        for module, names in _LATER.items():
            if name == module or name in names:
                home = import_module(f"tinyconv.{module}")
                return home if name == module else getattr(home, name)
        raise AttributeError(f"module 'tinyconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
