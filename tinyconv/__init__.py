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

from tinyconv import data, functional, models, optim
from tinyconv.gradcheck import gradcheck
from tinyconv.layers import (
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Fold,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
    Unfold,
)
from tinyconv.training import Trainer, load_weights, save_weights

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
    "Trainer",
    "Unfold",
    "data",
    "functional",
    "gradcheck",
    "load_weights",
    "models",
    "optim",
    "save_weights",
]
