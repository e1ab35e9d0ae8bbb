"""Training: the trainer, its history, weights in files, averaged weights, clipped gradients."""

from tinyconv.training.average import WeightAverage
from tinyconv.training.checkpoint import load_weights, save_weights
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_
from tinyconv.training.history import Epoch, History
from tinyconv.training.running import Evaluation
from tinyconv.training.trainer import Trainer

__all__ = [
    "Epoch",
    "Evaluation",
    "History",
    "Trainer",
    "WeightAverage",
    "clip_grad_norm_",
    "clip_grad_value_",
    "load_weights",
    "save_weights",
]
