"""Losses: criteria with a forward of two arguments, the prediction and the target, or of more inputs."""

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
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiInputLoss",
    "NLLLoss",
    "SmoothL1Loss",
    "TripletMarginLoss",
]


class Criterion(OfFunction, ForwardCache, options=("reduction",)):
    """Base class of the losses, of any number of inputs.

    Args:
        reduction: "none", "mean" or "sum".
    """

    _reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = one_of("reduction", reduction, self._reductions)

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_arguments(self)})"


class Loss(Criterion):
    """Base class of the criteria of a prediction and a target.

        loss = criterion.forward(prediction, target)
        grad = criterion.backward()   # gradient with respect to the prediction

    As with a layer, one forward serves one backward. The arguments of the constructor are attributes of the
    same names; the next forward uses what is assigned to them.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    >>> import numpy as np
    >>> from tinyconv import MSELoss
    >>> criterion = MSELoss()
    >>> criterion.reduction = "sum"
    >>> float(criterion(np.array([3.0, 2.0]), np.array([1.0, 5.0]))), criterion.backward()
    (13.0, array([ 4., -6.]))
    >>> isinstance(criterion, Loss)
    True
    """

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

    def output_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the loss of a prediction of `prediction_shape`."""
        return tuple(prediction_shape) if self.reduction == "none" else ()

    def __call__(self, prediction: Array, target: Array) -> Array:
        return self.forward(prediction, target)

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
        slopes = self._function_backward(ones, prediction, target, **{**options, "reduction": "none"})[0]
        moved = reduce(slopes * prediction_dot, *by_batch(prediction, options["reduction"]))
        return self.save_tangents(moved, prediction_dot)

    def backward_jvp(self, grad_output_dot: Array | None = None) -> Array:
        grad_output_dot = self.full(0) if grad_output_dot is None else grad_output_dot
        (prediction, target, options), (prediction_dot,), grad_output = self.saved_tangents(grad_output_dot)
        given = (prediction, target)
        if self._function_backward_jvp is None:  # the gradient is piecewise constant in the prediction
            return self._function_backward(grad_output_dot, *given, **options)[0]
        return self._function_backward_jvp(grad_output_dot, prediction_dot, grad_output, *given, **options)


class MSELoss(ElementLoss, function=F.mse_loss):
    """Compute the squared error; see `functional.mse_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html

    >>> import numpy as np
    >>> x, target = np.array([3.0, 2.0]), np.array([1.0, 5.0])
    >>> [MSELoss(reduction)(x, target).tolist() for reduction in ("none", "mean", "sum")]
    [[4.0, 9.0], 6.5, 13.0]
    """


class L1Loss(ElementLoss, function=F.l1_loss):
    """Compute the absolute error; see `functional.l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another `reduction`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html

    >>> import numpy as np
    >>> criterion = L1Loss()
    >>> float(criterion(np.array([3.0, 2.0]), np.array([1.0, 5.0]))), criterion.backward()
    (2.5, array([ 0.5, -0.5]))
    """


class SmoothL1Loss(ElementLoss, function=F.smooth_l1_loss, options=("reduction", "beta")):
    """Compute the squared error near 0, the absolute error beyond `beta`; see `functional.smooth_l1_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        beta: the distance at which the parabola becomes a straight line.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html

    >>> import numpy as np
    >>> criterion = SmoothL1Loss(reduction="none", beta=2.0)
    >>> criterion(np.array([1.0, 4.0]), np.zeros(2))  # 1 / 2 / 2, 4 - 2 / 2
    array([0.25, 3.  ])
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

    >>> import numpy as np
    >>> criterion = HuberLoss(reduction="none", delta=2.0)
    >>> criterion(np.array([1.0, 4.0]), np.zeros(2))  # 1 / 2, 2 * (4 - 1)
    array([0.5, 6. ])
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

    >>> import numpy as np
    >>> x, target = np.log([[0.25, 0.75]]), np.array([[0.5, 0.5]])
    >>> [float(KLDivLoss(reduction)(x, target).round(4)) for reduction in ("batchmean", "mean")]
    [0.1438, 0.0719]
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

    >>> import numpy as np
    >>> criterion = HingeEmbeddingLoss(margin=2.0, reduction="none")
    >>> criterion(np.array([0.5, 0.5, 3.0]), np.array([1, -1, -1]))
    array([0.5, 1.5, 0. ])
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

    >>> import numpy as np
    >>> criterion = BCELoss(weight=np.array([3.0, 1.0]), reduction="sum")
    >>> float(criterion(np.array([0.5, 0.5]), np.array([1.0, 0.0])).round(6))  # 4 * log(2)
    2.772589
    >>> criterion.backward()
    array([-6.,  2.])
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

    >>> import numpy as np
    >>> criterion = BCEWithLogitsLoss(reduction="none", pos_weight=np.array([3.0]))
    >>> criterion(np.zeros(2), np.array([1.0, 0.0])).round(6)  # 3 * log(2), log(2)
    array([2.079442, 0.693147])
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

    >>> import numpy as np
    >>> log_probabilities = np.array([[-1.0, -2.0], [-1.0, -2.0]])
    >>> criterion = NLLLoss(weight=np.array([1.0, 3.0]))
    >>> float(criterion(log_probabilities, np.array([0, 1])))  # (1 * 1 + 3 * 2) / (1 + 3)
    1.75
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

    >>> import numpy as np
    >>> logits, target = np.zeros((2, 4)), np.array([2, -100])  # the second does not count
    >>> criterion = CrossEntropyLoss(label_smoothing=0.4)
    >>> float(criterion(logits, target).round(6))  # log(4)
    1.386294
    >>> criterion.backward().round(6) + 0.0
    array([[ 0.15,  0.15, -0.45,  0.15],
           [ 0.  ,  0.  ,  0.  ,  0.  ]])
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


class MultiInputLoss(Criterion):
    """Base class of the criteria of several inputs, for example of two embeddings and a target.

        loss = criterion.forward(anchor, positive, negative)
        grads = criterion.backward()  # a tuple of the gradients with respect to `criterion.inputs`

    It is used as a Loss is, but not by a Trainer, which has one prediction for a target.

    Attributes:
        inputs: names of the first arguments of forward, those that backward returns the gradients of.

    >>> import numpy as np
    >>> from tinyconv import TripletMarginLoss
    >>> criterion = TripletMarginLoss()
    >>> loss = criterion(np.zeros((4, 2)), np.ones((4, 2)), np.ones((4, 2)))
    >>> isinstance(criterion, MultiInputLoss), criterion.inputs, len(criterion.backward())
    (True, ('anchor', 'positive', 'negative'), 3)
    """

    inputs: tuple[str, ...] = ("input1", "input2")

    def denominator(self, *inputs: Array) -> Any:
        """Return what the reduction "mean" divides by: the number of losses."""
        return vars(self._function)["terms"](*inputs, **self._options).losses.size

    def __call__(self, *inputs: Array) -> Array:
        return self.forward(*inputs)

    @underflow_allowed
    def forward(self, *inputs: Array) -> Array:
        """Compute the loss; keep what `backward` needs."""
        terms = vars(self._function)["terms"](*inputs, **self._options)
        return self.save(reduce(terms.losses, terms.reduction), terms)

    def backward(self, grad_output: Array | None = None) -> Any:
        """Compute the gradients with respect to the inputs that are named in `inputs`.

        Args, Raises: as `Loss.backward`.
        """
        grad_output = self.full(1) if grad_output is None else grad_output
        (terms,) = self.saved(grad_output)
        return terms.gradients(grad_output)[: len(self.inputs)]

    def jvp(self, *dots: Array) -> Array:
        """Compute the tangent of the last forward's loss for tangents of all that `inputs` names.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: another number of tangents, or one that does not fit its input.
        """
        (terms,) = self.kept()
        if len(dots) != len(self.inputs):
            raise ValueError(f"jvp takes tangents of {', '.join(self.inputs)}, got {len(dots)}")
        return self.save_tangents(terms.jvp(dots), *dots)

    def backward_jvp(self, grad_output_dot: Array | None = None) -> Any:
        """Compute the tangents of the last backward's gradients, after forward, jvp and backward.

        Args, Raises: as `Loss.backward_jvp`.
        """
        grad_output_dot = self.full(0) if grad_output_dot is None else grad_output_dot
        (terms,), dots, grad_output = self.saved_tangents(grad_output_dot)
        return terms.backward_jvp(grad_output_dot, dots, grad_output)


class MarginRankingLoss(MultiInputLoss, function=F.margin_ranking_loss, options=("margin", "reduction")):
    """Compare the order of two inputs with a target; see `functional.margin_ranking_loss`.

        grad_input1, grad_input2 = criterion.backward()

    Args:
        margin: by how much the input that should be higher should be.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html

    >>> import numpy as np
    >>> criterion = MarginRankingLoss(margin=0.5)
    >>> float(criterion(np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([1, 1])))
    0.75
    >>> criterion(np.array([1.0]), np.array([2.0]), np.array([1]))
    array(1.5)
    >>> criterion.backward()
    (array([-1.]), array([1.]))
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("margin", margin)


class CosineEmbeddingLoss(MarginRankingLoss, function=F.cosine_embedding_loss):
    """Compare the angle of two rows with a target; see `functional.cosine_embedding_loss`.

    Args:
        margin: the cosine below which pairs with the target -1 do not count.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html

    >>> import numpy as np
    >>> right, other = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [2.0, 0.0]])
    >>> criterion = CosineEmbeddingLoss(margin=0.5, reduction="none")
    >>> criterion(right, other, np.array([1, -1])).round(6)  # 1 - 0, 1 - 0.5
    array([1. , 0.5])
    """


class TripletMarginLoss(
    MultiInputLoss, function=F.triplet_margin_loss, options=("margin", "p", "eps", "swap", "reduction")
):
    """Compare distances from an anchor, of a positive and a negative; see `functional.triplet_margin_loss`.

        grad_anchor, grad_positive, grad_negative = criterion.backward()

    Args:
        margin: by how much more, above 0, the negative should be distant.
        p: of the p-norm that measures distances.
        eps: added to every difference.
        swap: whether the negative's distance is that from the positive, where this is smaller.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html

    >>> import numpy as np
    >>> anchor, near, far = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
    >>> float(TripletMarginLoss(p=1, eps=0.0)(anchor, near, far))  # 1 + 7 - 5.5
    2.5
    >>> float(TripletMarginLoss(p=1, eps=0.0, swap=True)(anchor, near, far))  # 4.5 from near to far
    3.5
    """

    inputs = ("anchor", "positive", "negative")

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps = above_zero("margin", margin), number("p", p), number("eps", eps)
        self.swap = boolean("swap", swap)
