"""Losses: criteria with a forward of two arguments, the prediction and the target."""

from collections.abc import Callable
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


class ElementLoss(Loss):
    """Base class of the criteria function(prediction, target, **options) that compare element by element."""

    def __init__(
        self,
        function: Callable[..., Array],
        function_backward: Callable[..., tuple[Array, Array | None]],
        reduction: str,
        **options: Any,
    ) -> None:
        super().__init__(reduction)
        self._function, self._function_backward = function, function_backward
        self._options = options

    def forward(self, prediction: Array, target: Array) -> Array:
        loss = self._function(prediction, target, reduction=self.reduction, **self._options)
        return self.save(loss, prediction, target)

    def backward(self, grad_output: Array | None = None) -> Array:
        grad_output = self.ones() if grad_output is None else grad_output
        prediction, target = self.saved(grad_output)
        return self._function_backward(
            grad_output, prediction, target, reduction=self.reduction, **self._options
        )[0]


class MSELoss(ElementLoss):
    """Squared error; see `functional.mse_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(F.mse_loss, F.mse_loss_backward, reduction)


class L1Loss(ElementLoss):
    """Absolute error; see `functional.l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(F.l1_loss, F.l1_loss_backward, reduction)


class SmoothL1Loss(ElementLoss):
    """Squared error near 0, absolute error beyond `beta`; see `functional.smooth_l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        beta: where the parabola becomes a straight line.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        beta = number("beta", beta, 0.0)
        super().__init__(F.smooth_l1_loss, F.smooth_l1_loss_backward, reduction, beta=beta)


class BCELoss(ElementLoss):
    """Binary cross-entropy of probabilities; see `functional.binary_cross_entropy`.

    Args:
        weight: a factor for each element, of a shape that broadcasts to that of the prediction, and of
            its dtype.
        reduction: "none", "mean" or "sum".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html
    """

    def __init__(self, weight: Array | None = None, *, reduction: str = "mean") -> None:
        super().__init__(F.binary_cross_entropy, F.binary_cross_entropy_backward, reduction, weight=weight)


class BCEWithLogitsLoss(ElementLoss):
    """Binary cross-entropy of logits; see `functional.binary_cross_entropy_with_logits`.

    Args:
        weight: a factor for each element, of a shape that broadcasts to that of the prediction, and of
            its dtype.
        reduction: "none", "mean" or "sum".
        pos_weight: a factor for the positive part of the targets: one for each class, say.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
    """

    def __init__(
        self, weight: Array | None = None, *, reduction: str = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(
            F.binary_cross_entropy_with_logits,
            F.binary_cross_entropy_with_logits_backward,
            reduction,
            weight=weight,
            pos_weight=pos_weight,
        )


class NLLLoss(ElementLoss):
    """Negative log-likelihood of class indices, for log-probabilities; see `functional.nll_loss`.

    Args:
        weight: (C,), a factor for each class, of the dtype of the log-probabilities.
        ignore_index: class index of targets that do not count.
        reduction: "none", "mean" or "sum".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
    """

    def __init__(
        self, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        ignore_index = integer("ignore_index", ignore_index, minimum=-(1 << 63))
        super().__init__(F.nll_loss, F.nll_loss_backward, reduction, weight=weight, ignore_index=ignore_index)


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
