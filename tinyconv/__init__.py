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

from tinyconv import functional as functional
from tinyconv import gradients as gradients
from tinyconv import init as init
from tinyconv import layers as layers
from tinyconv import models as models
from tinyconv import optim as optim
from tinyconv.gradients.gradcheck import gradcheck as gradcheck
from tinyconv.layers import *

if TYPE_CHECKING:
    from tinyconv import convert as convert
    from tinyconv import data as data
    from tinyconv import plots as plots
    from tinyconv import reference as reference
    from tinyconv import testing as testing
    from tinyconv import training as training
    from tinyconv import vectors as vectors
    from tinyconv.convert import *
    from tinyconv.gradients.diagnose import diagnose as diagnose
    from tinyconv.gradients.second_order import GradientLayer as GradientLayer
    from tinyconv.gradients.second_order import GradientStep as GradientStep
    from tinyconv.gradients.second_order import Objective as Objective
    from tinyconv.gradients.second_order import hessian_operator as hessian_operator
    from tinyconv.gradients.second_order import hessian_vector_product as hessian_vector_product
    from tinyconv.training import Trainer as Trainer
    from tinyconv.training import load_weights as load_weights
    from tinyconv.training import save_weights as save_weights

F = functional

_SECOND_ORDER = ("GradientLayer", "GradientStep", "Objective", "hessian_operator", "hessian_vector_product")
# Imported when they are first used, as importing them takes longer than all the rest.
_LATER = {
    "convert": ("export_onnx", "from_torch", "to_torch"),
    "data": (),
    "gradients.diagnose": ("diagnose",),
    "plots": (),
    "reference": (),
    "testing": (),
    "gradients.second_order": _SECOND_ORDER,
    "training": ("Trainer", "load_weights", "save_weights"),
    "vectors": (),
}

if not TYPE_CHECKING:  # a type checker knows the imported names, and would take any name for granted
    _own = ("F", "functional", "gradcheck", "gradients", "init", "layers", "models", "optim")
    _named_later = (name for module, names in _LATER.items() for name in (module, *names) if "." not in name)
    __all__ = sorted([*layers.__all__, *_own, *_named_later])

    def __getattr__(name: str) -> Any:
        for module, names in _LATER.items():
            if name == module or name in names:
                home = import_module(f"tinyconv.{module}")
                return home if name == module else getattr(home, name)
        raise AttributeError(f"module 'tinyconv' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
