"""MSELoss and CrossEntropyLoss: criteria with a forward of two arguments."""

from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import REDUCTIONS, integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.layers.layer import ForwardCache


class Loss(ForwardCache):
    """Base class of the criteria.

        loss = criterion.forward(prediction, target)
        grad = criterion.backward()   # gradient by the prediction

    As with a layer, one forward serves one backward.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)

    def __call__(self, prediction: Array, target: Array) -> Array:
        return self.forward(prediction, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"

    def forward(self, prediction: Array, target: Array) -> Array:
        """The loss; keeps what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Array | None = None) -> Array:
        """Gradient by the prediction, for an upstream gradient of the loss's shape (default: ones).

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` has not the shape or dtype of the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")


class MSELoss(Loss):
    """Squared error; see `functional.mse_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, prediction: Array, target: Array) -> Array:
        loss = F.mse_loss(prediction, target, self.reduction)
        return self.save(loss, prediction, target)

    def backward(self, grad_output: Array | None = None) -> Array:
        grad_output = self.ones() if grad_output is None else grad_output
        prediction, target = self.saved(grad_output)
        return F.mse_loss_backward(grad_output, prediction, target, self.reduction)[0]


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits with class indices or class probabilities; see `functional.cross_entropy`.

    Args:
        weight: (C,), a factor for each class, of the dtype of the logits.
        ignore_index: class index of targets that do not count.
        reduction: "none", "mean" or "sum".
        label_smoothing: the share of the target that is spread evenly over the classes.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.weight = weight
        self._options: dict[str, Any] = {
            "ignore_index": integer("ignore_index", ignore_index, minimum=-(1 << 63)),
            "reduction": self.reduction,
            "label_smoothing": number("label_smoothing", label_smoothing, 0.0, 1.0),
        }

    def forward(self, prediction: Array, target: Array) -> Array:
        loss, saved = F.cross_entropy_saved(prediction, target, self.weight, **self._options)
        return self.save(loss, saved)

    def backward(self, grad_output: Array | None = None) -> Array:
        grad_output = self.ones() if grad_output is None else grad_output
        (saved,) = self.saved(grad_output)
        return F.cross_entropy_saved_backward(grad_output, saved)
