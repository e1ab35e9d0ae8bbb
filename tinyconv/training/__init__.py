"""Training: the trainer, its history, weights in files."""

from tinyconv.training.checkpoint import load_weights, save_weights
from tinyconv.training.history import Epoch, History
from tinyconv.training.trainer import Evaluation, Trainer

__all__ = ["Epoch", "Evaluation", "History", "Trainer", "load_weights", "save_weights"]
