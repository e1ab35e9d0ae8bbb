"""Training: the trainer and its callbacks, communicators, checkpoints and weights in files."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv.training.average import WeightAverage as WeightAverage
from tinyconv.training.callbacks import *
from tinyconv.training.clip import clip_grad_norm_ as clip_grad_norm_
from tinyconv.training.clip import clip_grad_value_ as clip_grad_value_
from tinyconv.training.communicator import *
from tinyconv.training.history import Epoch as Epoch
from tinyconv.training.history import History as History
from tinyconv.training.processes import WorkerError as WorkerError
from tinyconv.training.run import Callback as Callback
from tinyconv.training.run import Run as Run
from tinyconv.training.running import Evaluation as Evaluation
from tinyconv.training.trainer import Trainer as Trainer
from tinyconv.training.weights import load_weights as load_weights
from tinyconv.training.weights import save_weights as save_weights

if TYPE_CHECKING:
    from tinyconv.training.checkpoints import Checkpoints as Checkpoints
    from tinyconv.training.log import HistoryLog as HistoryLog
else:  # a type checker knows the imported names
    _own = [name for name, own in vars().items() if getattr(own, "__module__", "").startswith(__name__)]
    __all__ = sorted([*_own, "Checkpoints", "HistoryLog"])


def __getattr__(name: str) -> Any:
    """Import the classes that write folders when they are first used, as this takes time."""
    homes = {"Checkpoints": "checkpoints", "HistoryLog": "log"}
    if name not in homes:
        raise AttributeError(f"module 'tinyconv.training' has no attribute {name!r}")
    return getattr(import_module(f"tinyconv.training.{homes[name]}"), name)
