"""Losses that compare with a margin: of distances, or of two or three inputs.

Those of several inputs broadcast them. Each is a function of rows, along the last axis, of which `Terms` has
the derivatives, and thereby every map of the loss.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import above_zero, boolean, check_arrays, check_kinds, check_like, check_ndim, number
from tinyconv.arrays import Array, array_module, summed_to, underflow_allowed
from tinyconv.functional.losses.elementwise import check_elements
from tinyconv.functional.losses.reduction import reduce, reduce_backward

__all__ = [
    "cosine_embedding_loss",
    "cosine_embedding_loss_backward",
    "hinge_embedding_loss",
    "hinge_embedding_loss_backward",
    "margin_ranking_loss",
    "margin_ranking_loss_backward",
    "triplet_margin_loss",
    "triplet_margin_loss_backward",
]

LEAST_SQUARE = float(np.float32(1e-12))  # cosine_embedding_loss adds it to the squares of lengths

_Parts: TypeAlias = list[tuple[int, Array]]


class Terms(NamedTuple):
    """The losses of rows, with summands of their slopes for one input each, and the tangents of these."""

    inputs: tuple[Array, ...]
    losses: Array
    parts: _Parts
    bent: Callable[..., _Parts]
    reduction: str

    @underflow_allowed
    def gradients(self, grad_output: Array, parts: _Parts | None = None) -> tuple[Array, ...]:
        """Return the gradients with respect to the inputs, from the summands of their slopes."""
        grads = reduce_backward(grad_output, self.losses, self.reduction)
        xp = array_module(grads)
        found = self._rows(map(xp.zeros_like, self.inputs))
        grads = xp.broadcast_to(grads, self.losses.shape)[..., None]
        for which, part in self.parts if parts is None else parts:
            found[which] = found[which] + summed_to(part * grads, found[which].shape)
        return tuple(grad.reshape(x.shape) for grad, x in zip(found, self.inputs, strict=True))

    @underflow_allowed
    def jvp(self, dots: tuple[Array, ...]) -> Array:
        """Return the tangent of the loss for tangents of the first inputs."""
        rows = self._rows(dots)
        moved: Any = sum((part * rows[i]).sum(axis=-1) for i, part in self.parts if i < len(rows))
        return reduce(array_module(*dots).asarray(moved), self.reduction)

    @underflow_allowed
    def backward_jvp(self, grad_output_dot: Array, dots: tuple[Array, ...], grad_output: Array) -> Any:
        """Return the tangents of the gradients with respect to the inputs that have tangents."""
        bent = self.gradients(grad_output, self.bent(*self._rows(dots)))
        return tuple(a + b for a, b in zip(self.gradients(grad_output_dot), bent, strict=True))[: len(dots)]

    def _rows(self, arrays: Any) -> list[Array]:
        """Arrays like the first inputs, with one axis more than the losses."""
        pairs = list(zip(self.inputs, arrays, strict=False))
        for x, array in pairs:
            check_like(x, input_dot=array)
        return [array if x.ndim > self.losses.ndim else array[..., None] for x, array in pairs]


def _loss(terms: Callable[..., Terms]) -> Callable[..., Array]:
    """Decorate a function that returns the terms: it then returns the loss."""

    @underflow_allowed
    @functools.wraps(terms)
    def loss(*args: Any, **options: Any) -> Array:
        found = terms(*args, **options)
        return reduce(found.losses, found.reduction)

    shown = inspect.signature(terms).replace(return_annotation=Array)
    vars(loss).update(terms=underflow_allowed(terms), __signature__=shown)
    return loss


def _backward(loss: Callable[..., Array], example: str) -> Callable[..., tuple[Array, ...]]:
    """Return the backward of a decorated loss, with its name and signature, and an example for its users."""

    @underflow_allowed
    def backward(grad_output: Array, *args: Any, **options: Any) -> tuple[Array, ...]:
        found: Terms = vars(loss)["terms"](*args, **options)
        return found.gradients(grad_output)

    takes, (first, *_) = inspect.signature(loss), inspect.signature(backward).parameters.values()
    shown = takes.replace(parameters=[first, *takes.parameters.values()], return_annotation=tuple[Array, ...])
    backward.__name__ = backward.__qualname__ = f"{loss.__name__}_backward"
    described = f"Compute the gradients of `{loss.__name__}`, which its documentation describes."
    backward.__doc__ = f"{described}\n{example}"
    vars(backward)["__signature__"] = shown
    return backward


@_loss
def hinge_embedding_loss(input: Array, target: Array, margin: float = 1.0, reduction: str = "mean") -> Terms:
    """Compute `input` where `target` is 1, and max(0, margin - input) where it is -1.

    The gradient with respect to `input` is 1 where the target is 1, -1 where it is -1 and input <= margin.

    Args:
        input: distances, any shape, float32 or float64.
        target: 1 or -1, of the shape of `input`, and of its dtype or an integer one. For another value both
            terms are added, as in PyTorch.
        margin: the distance from which pairs with the target -1 do not count.
        reduction: "none", "mean" or "sum".

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction.
        TypeError: dtypes that do not fit, a `margin` that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hinge_embedding_loss.html

    >>> import numpy as np
    >>> hinge_embedding_loss(np.array([0.25, 0.25, 3.0]), np.array([1, -1, -1]), reduction="none")
    array([0.25, 0.75, 0.  ])
    """
    target = signs_like("input", input, target)
    xp = check_elements(input, target)
    apart = number("margin", margin) - input
    losses = xp.where(target != 1, xp.maximum(apart, 0), 0) + xp.where(target != -1, input, 0)
    slope = (target != -1).astype(input.dtype) - ((target != 1) & (apart >= 0))
    return Terms((input,), xp.asarray(losses), [(0, slope[..., None])], lambda *dots: [], reduction)


hinge_embedding_loss_backward = _backward(
    hinge_embedding_loss,
    """
    >>> x, target = np.array([0.25, 0.25, 3.0]), np.array([1, -1, -1])
    >>> hinge_embedding_loss_backward(np.ones(3), x, target, reduction="none")[0]
    array([ 1., -1.,  0.])
    """,
)


@_loss
def margin_ranking_loss(
    input1: Array, input2: Array, target: Array, margin: float = 0.0, reduction: str = "mean"
) -> Terms:
    """Compute max(0, margin - target * (input1 - input2)).

    The gradients are -target, target and, if the target is not of an integer dtype, input2 - input1; or 0
    where the loss is 0, unless the margin is exactly reached.

    Args:
        input1, input2: arrays that broadcast to one shape, with the same number of dimensions, float32 or
            float64.
        target: 1 where `input1` should be ranked higher, -1 where `input2` should; an array that broadcasts
            with them, of their dtype or an integer one.
        margin: by how much more it should be.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of losses.

    Returns:
        A 0-d array, or one of the shape that the inputs broadcast to for "none".

    Raises:
        ValueError: shapes that do not fit, an unknown reduction.
        TypeError: dtypes that do not fit, a `margin` that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.margin_ranking_loss.html

    >>> import numpy as np
    >>> margin_ranking_loss(np.array([3.0, 1.0]), np.array([1.0, 2.0]), np.array([1, 1]), reduction="none")
    array([0., 1.])
    """
    signs = signs_like("input1", input1, target)
    xp = _check_broadcast(input1=input1, input2=input2, target=signs)
    difference = input1 - input2
    excess = xp.asarray(number("margin", margin) - signs * difference)
    active = (excess >= 0).astype(excess.dtype)
    inputs = (input1, input2, signs) if signs is target else (input1, input2)
    slopes = (-signs * active, signs * active, -difference * active)[: len(inputs)]
    parts = [(i, slope[..., None]) for i, slope in enumerate(slopes)]
    return Terms(inputs, xp.maximum(excess, 0), parts, lambda *dots: [], reduction)


margin_ranking_loss_backward = _backward(
    margin_ranking_loss,
    """
    >>> first, second = np.array([3.0, 1.0]), np.array([1.0, 2.0])  # the first pair is in order
    >>> grads = margin_ranking_loss_backward(np.ones(2), first, second, np.array([1, 1]), reduction="none")
    >>> [(grad + 0.0).tolist() for grad in grads[:2]]
    [[0.0, -1.0], [0.0, 1.0]]
    """,
)


@_loss
def cosine_embedding_loss(
    input1: Array, input2: Array, target: Array, margin: float = 0.0, reduction: str = "mean"
) -> Terms:
    """Compute 1 - cos(input1, input2) where `target` is 1, and max(0, cos - margin) where it is -1.

        cos = input1 . input2 / sqrt((|input1|^2 + 1e-12) * (|input2|^2 + 1e-12))

    There are two gradients, minus those of the cosine, those, or 0. That for `input1` is
    input2 / (|input1| |input2|) - cos * input1 / |input1|^2, with 1e-12 added to the squares of the lengths.

    Args:
        input1, input2: rows, (N, D), or one, (D,), that broadcast, float32 or float64.
        target: 1 or -1, (N,) or (), of the dtype of the inputs or an integer one. With another value the loss
            is 0, as in PyTorch.
        margin: the cosine below which pairs with the target -1 do not count.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of losses.

    Returns:
        A 0-d array, or one (N,) for "none".

    Raises:
        ValueError: shapes that do not fit, an unknown reduction.
        TypeError: dtypes that do not fit, a `margin` that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cosine_embedding_loss.html

    >>> import numpy as np
    >>> x = np.array([[3.0, 4.0], [3.0, 4.0]])
    >>> cosine_embedding_loss(x, 2 * x, np.array([1, -1]), margin=0.5, reduction="none").round(6)
    array([0. , 0.5])
    """
    signs = signs_like("input1", input1, target)[..., None]
    check_ndim("target", target, (0, 1), "() or (N,)")
    xp = _check_broadcast(input1=input1, input2=input2, target=signs)
    squares = ((x * x).sum(axis=-1, keepdims=True) + LEAST_SQUARE for x in (input1, input2))
    lengths = [square / xp.sqrt(square) for square in squares]  # NaN where the squares overflow
    units = [input1 / lengths[0], input2 / lengths[1]]
    cosine = (units[0] * units[1]).sum(axis=-1, keepdims=True)
    excess = cosine - number("margin", margin)
    losses = xp.where(signs == 1, 1 - cosine, 0) + xp.where(signs == -1, xp.maximum(excess, 0), 0)
    side = ((signs == -1) & (excess >= 0)).astype(cosine.dtype) - (signs == 1)

    def parts(towards: list[Array], along: list[Array]) -> _Parts:
        return [(i, side * pull[i] / lengths[i]) for pull in (towards, along) for i in (0, 1)]

    def bent(*dots: Array) -> _Parts:
        stretches = [(units[i] * dots[i]).sum(axis=-1, keepdims=True) / lengths[i] for i in (0, 1)]
        turns = [dots[i] / lengths[i] - units[i] * stretches[i] for i in (0, 1)]
        cosine_dot = (turns[0] * units[1] + units[0] * turns[1]).sum(axis=-1, keepdims=True)
        along = [(cosine * stretches[i] - cosine_dot) * units[i] - cosine * turns[i] for i in (0, 1)]
        return parts([turns[1 - i] - units[1 - i] * stretches[i] for i in (0, 1)], along)

    along = [-cosine * unit for unit in units]
    return Terms((input1, input2), losses[..., 0], parts(units[::-1], along), bent, reduction)


cosine_embedding_loss_backward = _backward(
    cosine_embedding_loss,
    """
    >>> right, up = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> grads = cosine_embedding_loss_backward(np.array(1.0), right, up, np.array([1]))
    >>> [(grad.round(6) + 0.0).tolist() for grad in grads[:2]]  # downhill, each turns to the other
    [[[0.0, -1.0]], [[-1.0, 0.0]]]
    """,
)


@_loss
@np.errstate(divide="ignore", invalid="ignore")  # lengths of 0
def triplet_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Terms:
    """Compute max(0, margin + |anchor - positive + eps| - |anchor - negative + eps|).

    With u and v the gradients of the two lengths, those of the loss are u - v, -u and v, or 0 where the loss
    is 0, unless the margin is exactly reached. A length of 0 has the gradient 0; where entries (p = infinity)
    or distances (`swap`) are equal, they share it.

    Args:
        anchor, positive, negative: rows, (N, D) or (..., D), that broadcast, with the same number of
            dimensions, float32 or float64.
        margin: by how much more, above 0, the negative should be distant than the positive.
        p: of the lengths |x| = (sum of |x_i|^p)^(1 / p); also 0 (the number of entries that are not 0),
            infinity (the largest entry) or less than 0.
        eps: added to every difference.
        swap: whether the negative's distance is that from the positive, where this is smaller.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of losses.

    Returns:
        A 0-d array, or one of the shape that the inputs broadcast to, without D, for "none".

    Raises:
        ValueError: shapes that do not fit, a `margin` of 0 or less, an unknown reduction.
        TypeError: dtypes that differ or are not floating, an option of the wrong type.

    Source: Balntas et al., https://bmva-archive.org.uk/bmvc/2016/papers/paper119/index.html;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.triplet_margin_loss.html

    >>> import numpy as np
    >>> anchor, near, far = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
    >>> float(triplet_margin_loss(anchor, near, far, eps=0.0))  # 1 + 5 - 5.5
    0.5
    """
    margin, p, eps = above_zero("margin", margin), number("p", p), number("eps", eps)
    inputs = anchor, positive, negative
    xp = _check_broadcast(anchor=anchor, positive=positive, negative=negative)
    rows = [x.reshape(x.shape or (1,)) for x in inputs]
    pairs = [(0, 1), (0, 2), (1, 2)][: 2 + boolean("swap", swap)]
    lengths = [_length(rows[i] - rows[j] + eps, p) for i, j in pairs]
    (first, *others), units, bends = zip(*lengths, strict=True)
    near = xp.minimum(others[0], others[-1])
    excess = margin + first - near
    active = (excess >= 0).astype(excess.dtype)
    nearest = [(norm == near).astype(excess.dtype) for norm in others]
    shares = [active, *(-active * chosen / sum(nearest) for chosen in nearest)]

    def parts(slopes: Iterable[Array]) -> _Parts:
        pulls = [(*pair, share * slope) for pair, share, slope in zip(pairs, shares, slopes, strict=True)]
        return [part for i, j, pull in pulls for part in ((i, pull), (j, -pull))]

    def bent(*dots: Array) -> _Parts:
        return parts(bend(dots[i] - dots[j]) for (i, j), bend in zip(pairs, bends, strict=True))

    return Terms(inputs, xp.maximum(excess, 0)[..., 0], parts(units), bent, reduction)


triplet_margin_loss_backward = _backward(
    triplet_margin_loss,
    """
    >>> anchor, near, far = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.5]])
    >>> grads = triplet_margin_loss_backward(np.array(1.0), anchor, near, far, eps=0.0)
    >>> [(grad.round(6) + 0.0).tolist() for grad in grads]
    [[[-0.6, 0.2]], [[0.6, 0.8]], [[0.0, -1.0]]]
    """,
)


def _length(x: Array, p: float) -> tuple[Array, Array, Callable[[Array], Array]]:
    """The p-norms of the rows of x, their gradients, and the tangent of these for one of x."""
    xp, sizes, signs = array_module(x), abs(x), array_module(x).sign(x)
    if np.isinf(p):
        norm = (sizes.max if p > 0 else sizes.min)(axis=-1, keepdims=True)
        reached = (sizes == norm).astype(x.dtype)
        unit = signs * reached / reached.sum(axis=-1, keepdims=True)
    elif p == 0:
        norm, unit = (x != 0).astype(x.dtype).sum(axis=-1, keepdims=True), 0 * x
    else:
        norm = (sizes**p).sum(axis=-1, keepdims=True) ** (1 / p)
        unit = xp.where(x == 0, 0, signs * (sizes / norm) ** (p - 1))

    @np.errstate(divide="ignore", invalid="ignore")
    def bend(x_dot: Array) -> Any:
        if p in (0, 1) or np.isinf(p):
            return 0 * x_dot
        turned = (sizes / norm) ** (p - 2) * x_dot - unit * (unit * x_dot).sum(axis=-1, keepdims=True)
        return xp.where(norm == 0, np.nan if p <= 2 else 0, (p - 1) * turned / norm)

    return norm, unit, bend


def _check_broadcast(**arrays: Array) -> Any:
    """Check that the arrays have one number of dimensions, and broadcast; return their module."""
    xp, shapes = check_arrays(**arrays), [array.shape for array in arrays.values()]
    if len({*map(len, shapes)}) > 1 or any(len({*axis} - {1}) > 1 for axis in zip(*shapes, strict=True)):
        given = ", ".join(f"`{name}` (of shape {array.shape})" for name, array in arrays.items())
        raise ValueError(f"{given} must have the same number of dimensions, and broadcast")
    return xp


def signs_like(name: str, input: Array, target: Array) -> Array:
    """Return `target`, if it has an integer dtype in that of `input`, which is called `name`."""
    check_kinds(**{name: input, "target": target})
    return target.astype(input.dtype) if target.dtype.kind in "iu" else target
