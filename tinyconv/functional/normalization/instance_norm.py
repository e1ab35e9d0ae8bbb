"""Instance norm: group norm with a group for each channel; with running statistics it is batch norm's."""

import math
from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_per_channel, number
from tinyconv.arrays import Array, array_module, underflow_allowed
from tinyconv.functional.normalization.batch_norm import batch_norm, batch_norm_backward, update_running
from tinyconv.functional.normalization.group_norm import group_norm, group_norm_backward

__all__ = ["instance_norm", "instance_norm_backward"]


def instance_norm(
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel of each sample over its positions.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with a weight and a bias for each channel

    Args:
        input: (N, C, ...), float32 or float64.
        running_mean, running_var: (C,) or both None. If `use_input_stats`, they are updated in place,
            running = (1 - momentum) * running + momentum * mean over the samples, of the means and the
            unbiased variances.
        weight, bias: (C,) or None for 1 and 0.
        use_input_stats: normalise with the mean and the biased variance of each channel of each sample
            instead of the running ones.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance.

    Returns:
        An array of the shape of `input`, in the memory format.

    Raises:
        ValueError: shapes that do not fit, one position with `use_input_stats`, no running statistics
            without it, one of them alone.
        TypeError: dtypes that differ or are not floating.

    Source: Ulyanov et al., https://arxiv.org/abs/1607.08022;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.instance_norm.html

    >>> instance_norm(np.array([[[1.0, 3.0], [0.0, 4.0]]]), eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    check_arrays(weight=weight, running_mean=running_mean, running_var=running_var, input=input, bias=bias)
    check_per_channel(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if (running_mean is None) != (running_var is None):
        raise ValueError("`running_mean` and `running_var` must both be given or both be None")
    check_positions(input.shape)
    output = group_norm(input, input.shape[1], weight, bias, eps)
    if running_mean is not None and running_var is not None:
        update_statistics(input, running_mean, running_var, momentum)
    return output


def instance_norm_backward(
    grad_output: Array,
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None for what is None).

    The running statistics are read without `use_input_stats`, and never changed.

    >>> x = np.array([[[-1.0, -1.0, 1.0, 1.0], [-2.0, -2.0, 2.0, 2.0]]])
    >>> grad = np.array([[[4.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]]])
    >>> instance_norm_backward(grad, x, eps=0.0)[0]
    array([[[ 2., -2.,  0.,  0.],
            [ 1., -1.,  0.,  0.]]])
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    check_arrays(weight=weight, **running, input=input, grad_output=grad_output, bias=bias)
    check_per_channel(input, **running)
    if not use_input_stats:
        return batch_norm_backward(
            grad_output, input, running_mean, running_var, weight, bias, False, momentum, eps
        )
    return group_norm_backward(grad_output, input, input.shape[1], weight, bias, eps)


def check_positions(shape: tuple[int, ...]) -> None:
    """Check that an input of `shape`, (N, C, ...), has more than one position."""
    if math.prod(shape[2:]) == 1:
        raise ValueError(f"`input` (of shape {tuple(shape)}) must have more than one position per channel")


@underflow_allowed
def update_statistics(
    input: Array, running_mean: Array, running_var: Array, momentum: float, allreduce: Any = None
) -> None:
    """Update the running statistics as `instance_norm` does; `allreduce` sums over the parts of a batch."""
    xp, axes, size = array_module(input), tuple(range(2, input.ndim)), math.prod(input.shape[2:])
    mean = input.sum(axis=axes, dtype=np.float64, keepdims=True) / max(1, size)
    var = ((input - mean) ** 2).sum(axis=axes) / max(1, size)
    totals, samples = xp.stack((mean.reshape(var.shape), var)).sum(axis=1), len(input)
    if allreduce is not None:
        reduced = allreduce(xp.append(totals, samples))
        totals, samples = reduced[:-1].reshape(2, -1), int(reduced[-1])
    mean, var = totals / max(1, samples)
    update_running(running_mean, running_var, mean, var, size if samples else 0, number("momentum", momentum))
