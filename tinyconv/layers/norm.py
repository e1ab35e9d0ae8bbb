"""BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm and InstanceNorm2d."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import check_kinds, floating_dtype, integer, number
from tinyconv.arrays import Array
from tinyconv.functional.normalization.batch_norm import BatchNormSaved
from tinyconv.functional.normalization.instance_norm import check_positions, update_statistics
from tinyconv.layers.attributes import Buffer, Parameter
from tinyconv.layers.divided import batch_allreduce
from tinyconv.layers.function import OfFunction
from tinyconv.layers.layer import Layer

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm"]


class AffineNorm(Layer):
    """Base class of the normalisations, which then multiply by a weight (ones) and add a bias (zeros)."""

    def _add_affine(self, shape: tuple[int, ...], affine: bool, bias: bool, dtype: npt.DTypeLike) -> None:
        self.weight = Parameter(np.ones(shape, floating_dtype(dtype))) if affine else None
        self.bias = Parameter(np.zeros(shape, floating_dtype(dtype))) if affine and bias else None

    @property
    def _affine(self) -> tuple[Array | None, Array | None]:
        return self._params.get("weight"), self._params.get("bias")

    def _add_grads(self, *grads: Array | None) -> None:
        own = self._grads
        for name, grad in zip(("weight", "bias"), grads, strict=True):
            if grad is not None and name in own:
                own[name] += grad

    def _add_grads_dot(self, *grads_dot: Array) -> None:
        for name, grad_dot in zip(("weight", "bias"), grads_dot, strict=True):
            if name in self._params:
                self.add_grad_dot(name, grad_dot)


class BatchNorm(AffineNorm):
    """Base class of the batch norms, which differ in the shapes that they take."""

    form = ""  # the shape rule in words, with {} for the channels
    dimensions: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = integer("num_features", num_features)
        self.eps = number("eps", eps)
        if self.eps <= 0:
            raise ValueError(f"`eps` (={eps}) must be above 0")
        self.momentum = None if momentum is None else number("momentum", momentum, 0.0, 1.0)
        self.affine, self.track_running_stats = bool(affine), bool(track_running_stats)
        dtype = floating_dtype(dtype)
        self._add_affine((num_features,), affine, bias, dtype)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = Buffer(np.zeros(num_features, dtype))
            self.running_var = Buffer(np.ones(num_features, dtype))
            self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def forward(self, x: Array) -> Array:
        check_kinds(input=x)
        self.output_shape(x.shape)
        mean, var = self._buffers.get("running_mean"), self._buffers.get("running_var")
        training = self.training or mean is None
        momentum = self._next_momentum() if self.training else 0.0
        output, saved = F.batch_norm_saved(
            x, mean, var, *self._affine, training, momentum, self.eps, batch_allreduce()
        )
        if self.training and mean is not None:
            self._buffers["num_batches_tracked"] += 1
        return self.save(output, saved)

    def backward(self, grad_output: Array) -> Array:
        (saved,) = self.saved(grad_output)
        grad_input, *grads = F.batch_norm_saved_backward(grad_output, saved, *self._affine, batch_allreduce())
        self._add_grads(*grads)
        return grad_input

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (saved,) = self.kept()
        if batch_allreduce() is not None and saved.size:
            raise RuntimeError("jvp of batch norm in training needs the whole batch, not a rank's part")
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        weight = self._params.get("weight")
        output_dot, moved = F.batch_norm_saved_jvp(x_dot, weight_dot, bias_dot, saved, weight)
        return self.save_tangents(output_dot, moved, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (saved,), (moved, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        weight = self._params.get("weight")
        grad_dot, *grads_dot = F.batch_norm_saved_backward_jvp(
            grad_output_dot, moved, weight_dot, grad_output, saved, weight
        )
        self._add_grads_dot(*grads_dot)
        return grad_dot

    def _next_momentum(self) -> float:
        if self.momentum is None and "num_batches_tracked" in self._buffers:
            return 1 / (int(self._buffers["num_batches_tracked"]) + 1)
        return self.momentum or 0.0

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) not in self.dimensions or input_shape[1] != self.num_features:
            form = self.form.format(*[self.num_features] * 2)
            raise ValueError(f"`input` (of shape {tuple(input_shape)}) must have the form {form}")
        return tuple(input_shape)


class BatchNorm1d(BatchNorm):
    """Normalise each channel of (N, C) or (N, C, L) over the batch and all positions.

    Args:
        num_features: C.
        eps: added to the variance, above 0.
        momentum: weight of a batch in the running statistics; None for the average of all batches.
        affine: whether to scale by a weight and shift by a bias.
        track_running_stats: whether to keep running statistics, which evaluation uses; without
            them evaluation uses the batch's own.
        bias: whether to shift by a bias, if `affine`.
        dtype: float32 (default) or float64.

    Parameters: weight (C,), ones; bias (C,), zeros. Buffers: running_mean and running_var (C,),
    num_batches_tracked, an int64.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html

    >>> layer = BatchNorm1d(1, momentum=0.5, dtype=np.float64)
    >>> layer(np.array([[1.0], [3.0]])).round(3).tolist(), layer.running_mean, layer.running_var
    ([[-1.0], [1.0]], array([1.]), array([1.5]))
    >>> layer.eval()(np.array([[1.0]])).round(3).tolist()  # the running mean
    [[0.0]]
    """

    form = "(N, {}) or (N, {}, L)"
    dimensions = (2, 3)


class BatchNorm2d(BatchNorm):
    """Normalise each channel of (N, C, H, W) over the batch and all positions.

    Args:
        num_features: C.
        eps: added to the variance, above 0.
        momentum: weight of a batch in the running statistics; None for the average of all batches.
        affine: whether to scale by a weight and shift by a bias.
        track_running_stats: whether to keep running statistics, which evaluation uses; without
            them evaluation uses the batch's own.
        bias: whether to shift by a bias, if `affine`.
        dtype: float32 (default) or float64.

    Parameters: weight (C,), ones; bias (C,), zeros. Buffers: running_mean and running_var (C,),
    num_batches_tracked, an int64.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html

    >>> layer = BatchNorm2d(1, dtype=np.float64)
    >>> layer.weight, layer.bias = [10.0], [5.0]
    >>> layer(np.array([[[[7.0, 7.0]]], [[[9.0, 9.0]]]])).round(2).tolist()
    [[[[-5.0, -5.0]]], [[[15.0, 15.0]]]]
    """

    form = "(N, {}, H, W)"
    dimensions = (4,)


class SampleNorm(OfFunction, AffineNorm):
    """Base class of LayerNorm and GroupNorm: function(x, sets, weight, bias, eps)."""

    _function_backward: Callable[..., tuple[Array, ...]]
    _function_backward_jvp: Callable[..., tuple[Array, ...]]  # type: ignore[assignment]

    def forward(self, x: Array) -> Array:
        check_kinds(input=x)
        self.output_shape(x.shape)
        sets, eps = self._options.values()
        return self.save(self._function(x, sets, *self._affine, eps), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        sets, eps = self._options.values()
        grad_input, *grads = self._function_backward(grad_output, x, sets, *self._affine, eps)
        self._add_grads(*grads)
        return grad_input

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        sets, eps = self._options.values()
        given = (x, sets, self._params.get("weight"), eps)
        return self.save_tangents(self._function_jvp(x_dot, weight_dot, bias_dot, *given), x_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        sets, eps = self._options.values()
        given = (grad_output, x, sets, self._params.get("weight"), eps)
        grad_dot, *grads_dot = self._function_backward_jvp(grad_output_dot, x_dot, weight_dot, *given)
        self._add_grads_dot(*grads_dot)
        return grad_dot


class LayerNorm(SampleNorm, function=F.layer_norm, options=("normalized_shape", "eps")):
    """Normalise each sample over its last dimensions; see `functional.layer_norm`.

    Args:
        normalized_shape: the last dimensions of the input, or an int for the last one alone.
        eps: added to the variance.
        elementwise_affine: whether to scale by a weight and shift by a bias.
        bias: whether to shift by a bias, if `elementwise_affine`.
        dtype: float32 (default) or float64.

    Parameters: weight, ones, and bias, zeros, of `normalized_shape`.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Ba et al., https://arxiv.org/abs/1607.06450;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html

    >>> layer = LayerNorm(2, bias=False, dtype=np.float64)
    >>> layer(np.array([[1.0, 3.0], [10.0, 50.0]])).round(3), list(layer.params)
    (array([[-1.,  1.],
           [-1.,  1.]]), ['weight'])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        shape = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape = tuple(integer("normalized_shape", length, minimum=0) for length in shape)
        if not self.normalized_shape:
            raise ValueError(f"`normalized_shape` (={normalized_shape!r}) must have at least one dimension")
        self.eps, self.elementwise_affine = number("eps", eps), bool(elementwise_affine)
        self._add_affine(self.normalized_shape, elementwise_affine, bias, dtype)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(input_shape[-len(self.normalized_shape) :]) != self.normalized_shape:
            raise ValueError(
                f"`input` (of shape {tuple(input_shape)}) must end in `normalized_shape` "
                f"(={self.normalized_shape})"
            )
        return tuple(input_shape)


class GroupNorm(SampleNorm, function=F.group_norm, options=("num_groups", "eps")):
    """Normalise each sample over the channels of a group; see `functional.group_norm`.

    Args:
        num_groups: number of groups of neighbouring channels; it divides `num_channels`.
        num_channels: C.
        eps: added to the variance.
        affine: whether to scale by a weight and shift by a bias, one for each channel.
        bias: whether to shift by a bias, if `affine`.
        dtype: float32 (default) or float64.

    Parameters: weight (C,), ones, and bias (C,), zeros.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Wu and He, https://arxiv.org/abs/1803.08494;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html

    >>> x = np.array([[1.0, 3.0, 10.0, 50.0]])  # two groups of two channels
    >>> GroupNorm(2, 4, dtype=np.float64)(x).round(3)
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.num_groups = integer("num_groups", num_groups)
        self.num_channels = integer("num_channels", num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"`num_channels` (={num_channels}) must be divisible by `num_groups` (={num_groups})"
            )
        self.eps, self.affine = number("eps", eps), bool(affine)
        self._add_affine((num_channels,), affine, bias, dtype)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) < 2 or input_shape[1] != self.num_channels:
            raise ValueError(
                f"`input` (of shape {tuple(input_shape)}) must have the form (N, {self.num_channels}, ...)"
            )
        return tuple(input_shape)


class InstanceNorm2d(SampleNorm, BatchNorm, function=F.group_norm, options=("num_features", "eps")):
    """Normalise each channel of each sample of (N, C, H, W) or (C, H, W); see `functional.instance_norm`.

    Args:
        num_features: C.
        eps: added to the variance, above 0.
        momentum: weight of a batch in the running statistics; None leaves them as they are.
        affine: whether to scale by a weight and shift by a bias, one for each channel.
        track_running_stats: whether to keep running statistics, which evaluation uses; without
            them evaluation uses the sample's own.
        bias: whether to shift by a bias, if `affine`.
        dtype: float32 (default) or float64.

    Parameters: weight (C,), ones, and bias (C,), zeros. Buffers: running_mean and running_var (C,),
    num_batches_tracked, which stays 0, as in PyTorch.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm2d.html

    >>> layer = InstanceNorm2d(2)
    >>> layer(np.array([[[1.0, 3.0]], [[10.0, 50.0]]])).round(3).tolist(), list(layer.params)
    ([[[-1.0, 1.0]], [[-1.0, 1.0]]], [])
    """

    form = "(N, {}, H, W) or ({}, H, W)"
    dimensions = (4,)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype)

    def forward(self, x: Array) -> Array:
        mean, var = self._buffers.get("running_mean"), self._buffers.get("running_var")
        if mean is not None and not self.training:
            return self._batched(BatchNorm.forward, x)
        output = self._batched(SampleNorm.forward, x)
        check_positions((1, *x.shape[-3:]))
        if mean is not None and var is not None:
            batch = x.reshape(-1, *x.shape[-3:])
            update_statistics(batch, mean, var, self.momentum or 0.0, batch_allreduce())
        return output

    def backward(self, grad_output: Array) -> Array:
        return self._batched(self._kind.backward, grad_output)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        return self._batched(self._kind.jvp, x_dot, params_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        return self._batched(self._kind.backward_jvp, grad_output_dot)

    @property
    def _kind(self) -> type[Layer]:
        """The class that has made the last forward."""
        cache = self._found()
        return BatchNorm if cache and isinstance(cache.values[0], BatchNormSaved) else SampleNorm

    def _batched(self, method: Callable[..., Array], x: Array, *more: Any) -> Array:
        check_kinds(input=x)
        return method(self, x[None], *more)[0] if x.ndim == 3 else method(self, x, *more)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        super(SampleNorm, self).output_shape((1, *input_shape)[-4:] if len(input_shape) == 3 else input_shape)
        return tuple(input_shape)
