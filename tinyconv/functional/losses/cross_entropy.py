"""Losses of class scores: cross-entropy of logits and negative log-likelihood, with their gradients.

Both weight the log-probabilities of the classes by `shares`, an array (N, C, ...) of the weight of each
sample's class, or of its class probabilities times the weights, with zeros where targets are ignored:

    loss = -sum over c of shares * log_probabilities

"mean" divides the sum of these by the sum of the targets' weights.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_kinds, check_shape, integer, number
from tinyconv.arrays import Array, array_module, constant, fused, kept_where, refused_where, underflow_allowed
from tinyconv.functional.losses.reduction import reduce, reduce_backward
from tinyconv.functional.softmax import log_probabilities

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_saved",
    "cross_entropy_saved_backward",
    "cross_entropy_saved_backward_jvp",
    "cross_entropy_saved_jvp",
    "nll_loss",
    "nll_loss_backward",
]


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Compute the cross-entropy between the softmax of `input` over the classes and `target`.

    For class indices y: loss = -weight[y] * log_softmax(input)[y]; for class probabilities t:
    loss = -sum over c of weight[c] * t[c] * log_softmax(input)[c].

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...), float32 or float64.
        target: class indices of an integer dtype, (), (N,) or (N, d1, ...); or class probabilities
            with the shape and dtype of `input`.
        weight: (C,), a factor for each class.
        ignore_index: targets of this class index count neither in the loss nor in the mean.
        reduction: "none", "mean" or "sum". For class indices the mean divides by the sum of the
            targets' weights (NaN when all are ignored), for probabilities by the number of targets.
        label_smoothing: the share, 0 to 1, of the target that is spread evenly over the classes.

    Returns:
        A 0-d array, or one of the shape of the class indices for "none".

    Raises:
        ValueError: shapes that do not fit, a class index outside 0 to C - 1, a label smoothing
            outside 0 to 1, an unknown reduction.
        TypeError: floating dtypes that differ; a target that is neither integer nor floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html

    >>> import numpy as np
    >>> float(cross_entropy(np.zeros((1, 4)), np.array([2])).round(6))  # log 4
    1.386294
    """
    return cross_entropy_saved(input, target, weight, ignore_index, reduction, label_smoothing)[0]


@underflow_allowed
def cross_entropy_backward(
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array, Array | None]:
    """Compute the gradients of `cross_entropy` with respect to `input` and `target` (None for class indices).

    With one class index y per sample and no options, the first is
    grad_output / N * (softmax(input) - onehot(y)).

    >>> grad_input, _ = cross_entropy_backward(np.array(1.0), np.zeros((2, 4)), np.array([2, -100]))
    >>> grad_input + 0.0  # the second target does not count
    array([[ 0.25,  0.25, -0.75,  0.25],
           [ 0.  ,  0.  ,  0.  ,  0.  ]])
    """
    _, saved = cross_entropy_saved(input, target, weight, ignore_index, reduction, label_smoothing)
    grad_input = cross_entropy_saved_backward(grad_output, saved)
    if target.dtype.kind != "f":
        return grad_input, None
    factor = _loss_factor(grad_output, saved) * (1 - label_smoothing)
    with np.errstate(invalid="ignore"):  # 0 * -inf: NaN, as in PyTorch
        grad_target = factor * saved.log_probabilities
        if weight is not None:
            grad_target *= _along_classes(weight, grad_target)
    return grad_input, grad_target.reshape(target.shape)


class CrossEntropySaved(NamedTuple):
    """What `cross_entropy_saved_backward` needs: (N, C, ...) arrays and how the losses were reduced."""

    shares: Array
    log_probabilities: Array
    total: Any
    reduction: str
    input_size: tuple[int, ...]


@underflow_allowed
def cross_entropy_saved(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array, CrossEntropySaved]:
    """Return `cross_entropy`, and what its backward needs.

    >>> loss, saved = cross_entropy_saved(np.zeros((1, 4)), np.array([2]), label_smoothing=0.4)
    >>> float(loss.round(6)), cross_entropy_saved_backward(np.array(1.0), saved).round(6)
    (1.386294, array([[ 0.15,  0.15, -0.45,  0.15]]))
    """
    _check_classes(input, target, weight)
    input_size = input.shape
    if input.ndim == 1:
        input, target = input[None], target[None]
    shares, total = _class_shares(input, target, weight, ignore_index, label_smoothing)
    scores = log_probabilities(input, 1)
    loss = reduce(_class_losses(scores, shares, target), reduction, total)
    saved = CrossEntropySaved(shares, scores, total, reduction, input_size)
    return loss.reshape(()) if len(input_size) == 1 else loss, saved


@underflow_allowed
def cross_entropy_saved_backward(grad_output: Array, saved: CrossEntropySaved) -> Array:
    """Compute the gradient with respect to `input` from what `cross_entropy_saved` returned.

    >>> _, saved = cross_entropy_saved(np.zeros((2, 2)), np.array([0, 1]), reduction="none")
    >>> cross_entropy_saved_backward(np.array([1.0, 2.0]), saved)
    array([[-0.5,  0.5],
           [ 1. , -1. ]])
    """
    grads = _loss_factor(grad_output, saved) * saved.shares
    grad: Array = _through_softmax(grads, saved.log_probabilities, grads.sum(axis=1, keepdims=True))
    return grad.reshape(saved.input_size)


@underflow_allowed
def cross_entropy_saved_jvp(input_dot: Array, saved: CrossEntropySaved) -> Array:
    """Compute the tangent of `cross_entropy` for a tangent of `input`.

    >>> _, saved = cross_entropy_saved(np.zeros((1, 4)), np.array([2]))
    >>> float(cross_entropy_saved_jvp(np.array([[0.0, 0.0, 4.0, 0.0]]), saved))  # 4 * (1/4 - 1)
    -3.0
    """
    check_arrays(log_probabilities=saved.log_probabilities, input_dot=input_dot)
    check_shape("input_dot", input_dot, saved.input_size, "of `input`")
    _, moved = _moved_probabilities(input_dot, saved)
    loss_dot = reduce(-(saved.shares * moved).sum(axis=1), saved.reduction, saved.total)
    return loss_dot.reshape(()) if len(saved.input_size) == 1 else loss_dot


@underflow_allowed
def cross_entropy_saved_backward_jvp(
    grad_output_dot: Array, input_dot: Array, grad_output: Array, saved: CrossEntropySaved
) -> Array:
    """Compute the tangent of `cross_entropy_saved_backward`; the probabilities depend on `input`.

    >>> _, saved = cross_entropy_saved(np.log([[1.0, 3.0]]), np.array([0]))  # p = [1/4, 3/4]
    >>> input_dot = np.array([[16.0, 0.0]])  # moves p by [3, -3]
    >>> cross_entropy_saved_backward_jvp(np.array(0.0), input_dot, np.array(1.0), saved).round(6)
    array([[ 3., -3.]])
    """
    check_arrays(
        log_probabilities=saved.log_probabilities,
        grad_output_dot=grad_output_dot,
        input_dot=input_dot,
        grad_output=grad_output,
    )
    check_shape("input_dot", input_dot, saved.input_size, "of `input`")
    probabilities, moved = _moved_probabilities(input_dot, saved)
    grads = _loss_factor(grad_output, saved) * saved.shares
    curved = probabilities * moved * grads.sum(axis=1, keepdims=True)
    result: Array = cross_entropy_saved_backward(grad_output_dot, saved) - curved.reshape(saved.input_size)
    return result


def _moved_probabilities(input_dot: Array, saved: CrossEntropySaved) -> tuple[Array, Array]:
    """The probabilities, and the tangents of their logarithms."""
    probabilities: Array = array_module(input_dot).exp(saved.log_probabilities)
    rows = input_dot.reshape(probabilities.shape)
    return probabilities, rows - (probabilities * rows).sum(axis=1, keepdims=True)


def _loss_factor(grad_output: Array, saved: CrossEntropySaved) -> Array:
    """Minus the gradient with respect to each target's sum, (N, 1, ...), or 0-d if all are equal."""
    check_kinds(grad_output=grad_output)
    if saved.reduction == "none" and len(saved.input_size) == 1:
        grad_output = grad_output[None]
    factor: Array = -reduce_backward(grad_output, saved.shares[:, 0], saved.reduction, saved.total)
    return factor[:, None] if factor.ndim else factor


@underflow_allowed
def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """Compute the negative log-likelihood, -weight[y] * input[y] for the class index y of each sample.

    Args:
        input: log-probabilities, (C,), (N, C) or (N, C, d1, ...), float32 or float64.
        target: class indices of an integer dtype, (), (N,) or (N, d1, ...).
        weight: (C,), a factor for each class.
        ignore_index: targets of this class index count neither in the loss nor in the mean.
        reduction: "none", "mean" or "sum"; the mean divides by the sum of the targets' weights (NaN when
            all are ignored).

    Returns:
        A 0-d array, or one of the shape of `target` for "none".

    Raises:
        ValueError: shapes that do not fit, a class index outside 0 to C - 1 (on a GPU, where a check would
            block, the loss is NaN instead), an unknown reduction.
        TypeError: floating dtypes that differ, a target that is not of an integer dtype.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html

    >>> import numpy as np
    >>> float(nll_loss(np.array([[-1.0, -2.0, -3.0]]), np.array([2])))
    3.0
    """
    scores, targets = _index_batch(input, target, weight)
    shares, total = _class_shares(scores, targets, weight, ignore_index, 0.0)
    loss = reduce(_class_losses(scores, shares, targets), reduction, total)
    return loss.reshape(()) if input.ndim == 1 else loss


@underflow_allowed
def nll_loss_backward(
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Array, None]:
    """Return the gradient for `input`, -weight[y] at the class index y and else 0; None for `target`.

    >>> grad_input, _ = nll_loss_backward(np.array(1.0), np.zeros((2, 3)), np.array([2, 0]))
    >>> grad_input + 0.0
    array([[ 0. ,  0. , -0.5],
           [-0.5,  0. ,  0. ]])
    """
    scores, targets = _index_batch(input, target, weight)
    shares, total = _class_shares(scores, targets, weight, ignore_index, 0.0)
    saved = CrossEntropySaved(shares, scores, total, reduction, input.shape)
    return (_loss_factor(grad_output, saved) * shares).reshape(input.shape), None


def _check_classes(input: Array, target: Array, weight: Array | None) -> None:
    check_arrays(input=input, weight=weight)
    check_kinds(input=input, target=target)
    axis = 0 if input.ndim == 1 else 1
    if input.ndim == 0 or input.shape[axis] == 0:
        raise ValueError(f"`input` (of shape {input.shape}) must have the form (C,) or (N, C, ...), C > 0")
    classes = input.shape[axis]
    if weight is not None and weight.shape != (classes,):
        check_shape("weight", weight, (classes,), f"for the {classes} classes of `input`")
    if target.dtype.kind == "f":
        check_arrays(input=input, target=target)
        check_shape("target", target, input.shape, "of `input` (class probabilities)")
    elif target.dtype.kind in "iu":
        shape = (*input.shape[:axis], *input.shape[axis + 1 :])
        check_shape("target", target, shape, "for class indices")
    else:
        cure = ": use target.astype(np.int64)" if target.dtype.kind == "b" else ""
        raise TypeError(f"`target` must be of an integer or floating dtype, got {target.dtype}{cure}")


def _class_shares(
    input: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Any]:
    """The weight of each class's log-probability in the loss, (N, C, ...), and what the mean divides by."""
    label_smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)
    ignore_index = integer("ignore_index", ignore_index, minimum=-(1 << 63))
    classes = input.shape[1]
    weights: Any = 1 if weight is None else _along_classes(weight, input)
    if target.dtype.kind == "f":
        if ignore_index >= 0:
            raise ValueError(f"`ignore_index` (={ignore_index}) must be negative for class probabilities")
        shares: Array = (target * (1 - label_smoothing) + label_smoothing / classes) * weights
        return shares, target.size // classes
    counted = target != ignore_index
    count = array_module(target).count_nonzero(counted)
    shares = _one_hot(target, classes, counted, count, input.dtype)
    if weight is not None:
        shares *= weights
    total = _sum_of_weights(target, counted, count, weight, input.dtype)
    if label_smoothing:
        smooth = counted[:, None].astype(input.dtype) * (weights * (label_smoothing / classes))
        shares = shares * (1 - label_smoothing) + smooth
    return shares, total


def class_denominator(
    input: Array, target: Array, weight: Array | None = None, ignore_index: int = -100
) -> Any:
    """Return what the mean of `cross_entropy` and `nll_loss` divides by: a 0-d array for GPU indices."""
    _check_classes(input, target, weight)
    if target.dtype.kind == "f":
        return target.size // input.shape[0 if input.ndim == 1 else 1]
    counted = target != ignore_index
    return _sum_of_weights(target, counted, array_module(target).count_nonzero(counted), weight, input.dtype)


def _sum_of_weights(
    target: Array, counted: Array, count: Any, weight: Array | None, dtype: npt.DTypeLike
) -> Any:
    """The sum of the weights of the class indices that count; a number where reading it does not block."""
    xp = array_module(target)
    if weight is None:
        return int(count) if xp is np else count.astype(dtype)
    total = (weight[xp.where(counted, target, 0)] * counted).sum()
    return float(total) if xp is np else total


def _one_hot(target: Array, classes: int, counted: Array, count: Any, dtype: npt.DTypeLike) -> Array:
    """1 at the class of each target that is `counted`, of which there are `count`, (N, C, ...); else 0."""
    xp = array_module(target)
    if xp is not np:
        written: Array = xp.empty((classes, *target.shape), dtype).swapaxes(0, 1)
        indices = constant(tuple(range(classes)), "int64", xp).reshape(-1, *[1] * (target.ndim - 1))
        _write_one_hot(written, indices, target[:, None], counted[:, None], classes)
        return written
    indices = xp.arange(classes).reshape(-1, *[1] * target.ndim)
    own = ((indices == target) & counted).swapaxes(0, 1)  # stored as the logits of a linear layer are

    def error() -> ValueError:
        wrong = target[((target < 0) | (target >= classes)) & counted]
        return ValueError(
            f"`target` has the class index {wrong[0]}, which must be between 0 and {classes - 1}"
        )

    return refused_where(xp.count_nonzero(own) != count, own.astype(dtype), error)


@fused
def _write_one_hot(xp: Any, own: Array, indices: Array, target: Array, counted: Array, classes: int) -> None:
    """`_one_hot` on a GPU: NaN for a class that does not exist."""
    wrong = ((target < 0) | (target >= classes)) & counted
    own[...] = xp.where(wrong, np.nan, ((indices == target) & counted).astype(np.float64))


def _index_batch(input: Array, target: Array, weight: Array | None) -> tuple[Array, Array]:
    """`input` and `target`, checked to be class indices, with a batch dimension."""
    _check_classes(input, target, weight)
    if target.dtype.kind not in "iu":
        raise TypeError(f"`target` must be of an integer dtype, got {target.dtype}")
    return (input[None], target[None]) if input.ndim == 1 else (input, target)


def _class_losses(log_probabilities: Array, shares: Array, target: Array) -> Array:
    """The loss of each target, (N, ...)."""
    if target.dtype.kind != "f" and array_module(shares) is not np:
        picked: Array = _picked(shares, log_probabilities)
        return picked
    with np.errstate(invalid="ignore"):  # 0 * -inf: not read for class indices, NaN for probabilities
        losses = shares * log_probabilities
    if target.dtype.kind != "f":
        losses = kept_where(shares != 0, losses)
    summed: Array = -losses.sum(axis=1)
    return summed


@fused
def _picked(xp: Any, shares: Array, log_probabilities: Array) -> Any:
    """`_class_losses` of class indices on a GPU."""
    return -xp.sum(xp.where(shares != 0, shares * log_probabilities, 0), axis=1)


@fused
def _through_softmax(xp: Any, grads: Array, log_probabilities: Array, total: Array) -> Any:
    return grads - xp.exp(log_probabilities) * total


def _along_classes(weight: Array, input: Array) -> Array:
    """`weight`, (C,), shaped to multiply (N, C, ...)."""
    return weight.reshape(1, -1, *[1] * (input.ndim - 2))
