"""Losses: criteria with a forward of two arguments, the prediction and the target."""

from collections.abc import Callable
from typing import Any, Self

import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import (
    REDUCTIONS,
    above_zero,
    boolean,
    check_shape,
    conversion,
    integer,
    number,
    one_of,
)
from tinyconv.arrays import Array, array_module, is_array, underflow_allowed
from tinyconv.functional.losses.cross_entropy import class_denominator
from tinyconv.functional.losses.elementwise import check_elements
from tinyconv.functional.losses.reduction import by_batch, reduce
from tinyconv.layers.cache import ForwardCache
from tinyconv.layers.function import OfFunction
from tinyconv.signature import shown_arguments

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
]


class Loss(OfFunction, ForwardCache, options=("reduction",)):
    """Base class of the criteria.

        loss = criterion.forward(prediction, target)
        grad = criterion.backward()   # gradient with respect to the prediction

    As with a layer, one forward serves one backward. The arguments of the constructor are attributes of the
    same names; the next forward uses what is assigned to them.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.
    """

    _reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, self._reductions)

    def denominator(self, prediction: Array, target: Array) -> Any:
        """Return what the reduction "mean" divides the sum of the losses by, whatever `reduction` is.

        The mean is sum / denominator, and the mean over several batches is the sum of their mean *
        denominator over the sum of their denominators: this is how `Trainer` combines batches. For a custom
        loss it is the batch size, unless overridden. 0 means that no target counts.

        Args:
            prediction, target: as `forward` takes them.

        Returns:
            A number; on a GPU, if it depends on the values, a 0-d array of the dtype of the prediction.

        >>> import numpy as np
        >>> from tinyconv import CrossEntropyLoss, MSELoss
        >>> MSELoss().denominator(np.zeros((2, 3)), np.zeros((2, 3)))
        6
        >>> weight = np.array([1.0, 0.5, 2.0])
        >>> CrossEntropyLoss(weight).denominator(np.zeros((3, 3)), np.array([2, 0, -100]))
        3.0
        """
        return len(target) if target.ndim else 1

    def to(self, target: npt.DTypeLike) -> Self:
        """Move the attributes that are arrays, such as class weights, to a device, or convert their dtype.

        Args:
            target: "cpu", "cuda", float32 or float64.

        Raises:
            ValueError, TypeError, RuntimeError: as `Layer.to`.
        """
        self._convert(conversion(target))
        return self

    def _convert(self, convert: Callable[[Array], Array]) -> None:
        """Convert the attributes that are arrays."""
        for name, value in vars(self).items():
            if is_array(value):
                setattr(self, name, convert(value))

    def output_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the loss of a prediction of `prediction_shape`."""
        return tuple(prediction_shape) if self.reduction == "none" else ()

    def __call__(self, prediction: Array, target: Array) -> Array:
        return self.forward(prediction, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_arguments(self)})"

    def forward(self, prediction: Array, target: Array) -> Array:
        """Compute the loss; keep what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def backward(self, grad_output: Array | None = None) -> Array:
        """Compute the gradient with respect to the prediction.

        Args:
            grad_output: upstream gradient, of the shape and dtype of the loss (default: ones).

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` does not have the shape or dtype of the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement backward")

    def jvp(self, prediction_dot: Array) -> Array:
        """Compute the tangent of the last forward's loss for a tangent of the prediction.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `prediction_dot` does not have the shape or dtype of the prediction.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement jvp")

    def backward_jvp(self, grad_output_dot: Array | None = None) -> Array:
        """Compute the tangent of the last backward for tangents of the prediction and `grad_output`.

        Call it after forward, jvp and backward.

        Args:
            grad_output_dot: tangent of `grad_output` (default: zeros).

        Raises:
            RuntimeError: not a forward, a jvp and a backward before it.
            ValueError, TypeError: `grad_output_dot` does not have the shape or dtype of the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement backward_jvp")


class ElementLoss(Loss):
    """Base class of the criteria function(prediction, target, **options) that compare element by element."""

    def denominator(self, prediction: Array, target: Array) -> Any:
        check_elements(prediction, target)
        return prediction.size

    def forward(self, prediction: Array, target: Array) -> Array:
        options = self._options
        return self.save(self._function(prediction, target, **options), prediction, target, options)

    def backward(self, grad_output: Array | None = None) -> Array:
        grad_output = self.full(1) if grad_output is None else grad_output
        prediction, target, options = self.saved(grad_output)
        grad: Array = self._function_backward(grad_output, prediction, target, **options)[0]
        return grad

    @underflow_allowed
    def jvp(self, prediction_dot: Array) -> Array:
        prediction, target, options = self.kept()
        check_shape("prediction_dot", prediction_dot, prediction.shape, "of the prediction")
        ones = array_module(prediction).ones_like(prediction)
        slopes, _ = self._function_backward(ones, prediction, target, **{**options, "reduction": "none"})
        moved = reduce(slopes * prediction_dot, *by_batch(prediction, options["reduction"]))
        return self.save_tangents(moved, prediction_dot)

    def backward_jvp(self, grad_output_dot: Array | None = None) -> Array:
        grad_output_dot = self.full(0) if grad_output_dot is None else grad_output_dot
        (prediction, target, options), (prediction_dot,), grad_output = self.saved_tangents(grad_output_dot)
        if self._function_backward_jvp is None:  # the gradient is piecewise constant in the prediction
            grad_dot: Array = self._function_backward(grad_output_dot, prediction, target, **options)[0]
            return grad_dot
        given = (grad_output, prediction, target)
        return self._function_backward_jvp(grad_output_dot, prediction_dot, *given, **options)


class MSELoss(ElementLoss, function=F.mse_loss):
    """Compute the squared error; see `functional.mse_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """


class L1Loss(ElementLoss, function=F.l1_loss):
    """Compute the absolute error; see `functional.l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """


class SmoothL1Loss(ElementLoss, function=F.smooth_l1_loss, options=("reduction", "beta")):
    """Compute the squared error near 0, the absolute error beyond `beta`; see `functional.smooth_l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        beta: the distance at which the parabola becomes a straight line.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = number("beta", beta, 0.0)


class HuberLoss(ElementLoss, function=F.huber_loss, options=("reduction", "delta")):
    """Compute half the squared error near 0, a straight line beyond `delta`; see `functional.huber_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        delta: the distance, above 0, at which the parabola becomes a straight line.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = above_zero("delta", delta)


class KLDivLoss(ElementLoss, function=F.kl_div, options=("reduction", "log_target")):
    """Compute the Kullback-Leibler divergence of log-probabilities from a target; see `functional.kl_div`.

    Args:
        reduction: "none", "mean", "sum" or "batchmean"; "mean" divides by the number of elements,
            "batchmean" by that of samples.
        log_target: whether the target has log-probabilities.

    Raises:
        ValueError, TypeError: another `reduction`, a `log_target` that is not a bool.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html
    """

    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = boolean("log_target", log_target)

    def denominator(self, prediction: Array, target: Array) -> Any:
        size = super().denominator(prediction, target)
        return by_batch(prediction, self.reduction)[1] or size


class HingeEmbeddingLoss(ElementLoss, function=F.hinge_embedding_loss, options=("margin", "reduction")):
    """Compute distances, or what they lack to a margin; see `functional.hinge_embedding_loss`.

    Args:
        margin: the distance from which pairs with the target -1 do not count.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("margin", margin)


class BCELoss(ElementLoss, function=F.binary_cross_entropy, options=("weight", "reduction")):
    """Compute the binary cross-entropy of probabilities; see `functional.binary_cross_entropy`.

    Args:
        weight: a factor for each element, of a shape that broadcasts to that of the prediction, and of
            its dtype.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html
    """

    def __init__(self, weight: Array | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight


class BCEWithLogitsLoss(
    ElementLoss, function=F.binary_cross_entropy_with_logits, options=("weight", "reduction", "pos_weight")
):
    """Compute the binary cross-entropy of logits; see `functional.binary_cross_entropy_with_logits`.

    Args:
        weight: a factor for each element, of a shape that broadcasts to that of the prediction, and of
            its dtype.
        reduction: "none", "mean" or "sum".
        pos_weight: a factor for the positive part of the targets, for example one for each class.

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
    """

    def __init__(
        self, weight: Array | None = None, reduction: str = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight


class ClassLoss(Loss, options=("weight", "ignore_index", "reduction")):
    """Base class of the criteria that compare the scores of classes with targets."""

    def __init__(
        self, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = weight, integer("ignore_index", ignore_index, minimum=-(1 << 63))

    def denominator(self, prediction: Array, target: Array) -> Any:
        return class_denominator(prediction, target, self.weight, self.ignore_index)

    def output_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().output_shape(prediction_shape)
        return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


class NLLLoss(ClassLoss, ElementLoss, function=F.nll_loss):
    """Compute the negative log-likelihood of class indices, for log-probabilities; see `functional.nll_loss`.

    Args:
        weight: (C,), a factor for each class, of the dtype of the log-probabilities.
        ignore_index: class index of targets that do not count.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
    """

    @underflow_allowed
    def jvp(self, prediction_dot: Array) -> Array:
        prediction, target, options = self.kept()
        check_shape("prediction_dot", prediction_dot, prediction.shape, "of the prediction")
        return self.save_tangents(F.nll_loss(prediction_dot, target, **options), prediction_dot)


class CrossEntropyLoss(ClassLoss, options=("weight", "ignore_index", "reduction", "label_smoothing")):
    """Compute the cross-entropy of logits and class indices or probabilities; see `functional.cross_entropy`.

    Args:
        weight: (C,), a factor for each class, of the dtype of the logits.
        ignore_index: class index of targets that do not count.
        reduction: "none", "mean" or "sum".
        label_smoothing: the share of the target that is spread evenly over the classes.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.label_smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)

    def forward(self, prediction: Array, target: Array) -> Array:
        loss, saved = F.cross_entropy_saved(prediction, target, **self._options)
        return self.save(loss, saved)

    def backward(self, grad_output: Array | None = None) -> Array:
        grad_output = self.full(1) if grad_output is None else grad_output
        (saved,) = self.saved(grad_output)
        return F.cross_entropy_saved_backward(grad_output, saved)

    def jvp(self, prediction_dot: Array) -> Array:
        (saved,) = self.kept()
        return self.save_tangents(F.cross_entropy_saved_jvp(prediction_dot, saved), prediction_dot)

    def backward_jvp(self, grad_output_dot: Array | None = None) -> Array:
        grad_output_dot = self.full(0) if grad_output_dot is None else grad_output_dot
        (saved,), (prediction_dot,), grad_output = self.saved_tangents(grad_output_dot)
        return F.cross_entropy_saved_backward_jvp(grad_output_dot, prediction_dot, grad_output, saved)
