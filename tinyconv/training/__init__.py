"""Training: the trainer, its history, weights and checkpoints in files, averaged weights, clipping."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv.training.average import WeightAverage
from tinyconv.training.checkpoint import load_weights, save_weights
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_
from tinyconv.training.history import Epoch, History
from tinyconv.training.parallel import WorkerError
from tinyconv.training.running import Evaluation
from tinyconv.training.trainer import Trainer

if TYPE_CHECKING:
    from tinyconv.training.checkpoints import Checkpoints
    from tinyconv.training.log import HistoryLog

__all__ = [
    "Checkpoints",
    "Epoch",
    "Evaluation",
    "History",
    "HistoryLog",
    "Trainer",
    "WeightAverage",
    "WorkerError",
    "clip_grad_norm_",
    "clip_grad_value_",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    """Import the classes that write folders when they are first used, as this takes time."""
    homes = {"Checkpoints": "checkpoints", "HistoryLog": "log"}
    if name not in homes:
        raise AttributeError(f"module 'tinyconv.training' has no attribute {name!r}")
    return getattr(import_module(f"tinyconv.training.{homes[name]}"), name)
