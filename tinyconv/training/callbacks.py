"""Callbacks that come with the trainer: early stopping, and clipping of gradients."""

from tinyconv.arguments import above_zero, boolean, integer, number
from tinyconv.arrays import Array
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_
from tinyconv.training.history import History
from tinyconv.training.run import Callback, Run

__all__ = ["ClipGradNorm", "ClipGradValue", "EarlyStopping"]


class EarlyStopping(Callback):
    """Stop when epochs do not become better, and return to the best one.

    An epoch is better by validation accuracy, else validation loss, else training loss. Epochs of an earlier
    call of `fit` do not count; a resumed call continues counting.

    Args:
        patience: stop when so many epochs have not been better than the best before them; None for never.
        restore_best: end with the weights of the best epoch, as they were evaluated. (The newest checkpoint
            has the last ones.) If that was an epoch of a run that was resumed, the weights are taken from its
            checkpoint, for which the Trainer needs `Checkpoints`.

    Raises:
        ValueError, TypeError: `patience` is not an integer of at least 1. `fit` raises ValueError for a best
            epoch of an earlier call, of which the weights were not kept.

    >>> EarlyStopping(3, restore_best=True)
    EarlyStopping(patience=3, restore_best=True)
    """

    def __init__(self, patience: int | None = None, restore_best: bool = False) -> None:
        self.patience = None if patience is None else integer("patience", patience)
        self.restore_best = boolean("restore_best", restore_best)
        self._best: dict[str, Array] | None = None

    def on_fit_begin(self, run: Run) -> None:
        self._best = None
        self._stop_if_done(run)

    def on_epoch_end(self, run: Run) -> None:
        if self.restore_best and run.history.epochs_since_best == 0:
            self._best = run.evaluated.state_dict()
        self._stop_if_done(run)

    def on_fit_end(self, run: Run) -> None:
        if not (self.restore_best and run.history.epochs_since_best):
            return
        weights = self._best or _best_of_checkpoints(run)
        for model in (run.model, run.evaluated):
            model.load_state_dict(weights)

    def _stop_if_done(self, run: Run) -> None:
        epochs = History(run.history.epochs[run.first_epoch - 1 :])
        if self.patience is not None and epochs.epochs_since_best >= self.patience:
            run.stop = True


class ClipGradNorm(Callback):
    """Clip the norm of all gradients together before each step; see `clip_grad_norm_`.

    Args:
        max_norm: the largest norm, at least 0.
        norm_type: its order, above 0.
        error_if_nonfinite: whether a norm that is NaN or infinite is an error.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    >>> ClipGradNorm(1.0)
    ClipGradNorm(1)
    """

    every_rank = replayable = True

    def __init__(self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> None:
        self.max_norm, self.norm_type = number("max_norm", max_norm, 0.0), above_zero("norm_type", norm_type)
        self.error_if_nonfinite = boolean("error_if_nonfinite", error_if_nonfinite)

    def on_gradients(self, run: Run) -> None:
        clip_grad_norm_(run.model, self.max_norm, self.norm_type, self.error_if_nonfinite)


class ClipGradValue(Callback):
    """Clip each value of the gradients before each step; see `clip_grad_value_`.

    Args:
        clip_value: the largest absolute value, at least 0.

    Raises:
        ValueError, TypeError: a `clip_value` out of range or of the wrong type.

    >>> ClipGradValue(0.5)
    ClipGradValue(0.5)
    """

    every_rank = replayable = True

    def __init__(self, clip_value: float) -> None:
        self.clip_value = number("clip_value", clip_value, 0.0)

    def on_gradients(self, run: Run) -> None:
        clip_grad_value_(run.model, self.clip_value)


def _best_of_checkpoints(run: Run) -> dict[str, Array]:
    """The weights of the best epoch, from its checkpoint."""
    from tinyconv.training.checkpoints import Checkpoints

    for callback in run.callbacks:
        if isinstance(callback, Checkpoints):
            return callback.best_weights(run)
    raise ValueError(
        "`restore_best` needs Checkpoints among the callbacks, as the best epoch was in another fit"
    )
