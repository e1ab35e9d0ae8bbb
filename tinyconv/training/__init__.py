"""Training: the trainer and its callbacks, communicators, checkpoints and weights in files."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv.training.average import WeightAverage
from tinyconv.training.callbacks import *
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_
from tinyconv.training.communicator import *
from tinyconv.training.history import Epoch, History
from tinyconv.training.processes import WorkerError
from tinyconv.training.run import Callback, Run
from tinyconv.training.running import Evaluation
from tinyconv.training.trainer import Trainer
from tinyconv.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from tinyconv.training.checkpoints import Checkpoints
    from tinyconv.training.log import HistoryLog

__all__ = [
    "Callback",
    "Checkpoints",
    "ClipGradNorm",
    "ClipGradValue",
    "Communicator",
    "EarlyStopping",
    "Epoch",
    "Evaluation",
    "History",
    "HistoryLog",
    "MPICommunicator",
    "Run",
    "Trainer",
    "WeightAverage",
    "WorkerError",
    "clip_grad_norm_",
    "clip_grad_value_",
    "default_communicator",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    """Import the classes that write folders when they are first used, as this takes time."""
    homes = {"Checkpoints": "checkpoints", "HistoryLog": "log"}
    if name not in homes:
        raise AttributeError(f"module 'tinyconv.training' has no attribute {name!r}")
    return getattr(import_module(f"tinyconv.training.{homes[name]}"), name)
