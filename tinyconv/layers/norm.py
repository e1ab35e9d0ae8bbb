"""BatchNorm2d."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import floating_dtype, integer, number
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer


class BatchNorm2d(Layer):
    """Normalisation of each channel of (N, C, H, W) over the batch and all positions.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics; None for the average of all batches.
        affine: whether to scale by a weight and shift by a bias.
        track_running_stats: whether to keep running statistics, which evaluation uses; without
            them evaluation uses the batch's own.
        dtype: float32 (default) or float64.

    Parameters: weight (C,), ones; bias (C,), zeros. Buffers: running_mean and running_var (C,),
    num_batches_tracked, an int64.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = integer("num_features", num_features)
        self.eps = number("eps", eps, 0.0)
        self.momentum = None if momentum is None else number("momentum", momentum, 0.0, 1.0)
        dtype = floating_dtype(dtype)
        if affine:
            self.add_parameter("weight", np.ones(num_features, dtype))
            self.add_parameter("bias", np.zeros(num_features, dtype))
        if track_running_stats:
            self.add_buffer("running_mean", np.zeros(num_features, dtype))
            self.add_buffer("running_var", np.ones(num_features, dtype))
            self.add_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Array) -> Array:
        self.output_shape(x.shape)
        mean, var = self.buffers.get("running_mean"), self.buffers.get("running_var")
        weight, bias = self.params.get("weight"), self.params.get("bias")
        training = self.training or mean is None
        momentum = self._next_momentum() if self.training else 0.0
        output, saved = F.batch_norm_saved(
            x, mean, var, weight, bias, training, momentum, self.eps, self._allreduce
        )
        if self.training and mean is not None:
            self.buffers["num_batches_tracked"] += 1
        return self.save(output, saved)

    def backward(self, grad_output: Array) -> Array:
        (saved,) = self.saved(grad_output)
        weight, bias = self.params.get("weight"), self.params.get("bias")
        grad_input, *grads = F.batch_norm_saved_backward(grad_output, saved, weight, bias, self._allreduce)
        for name, grad in zip(("weight", "bias"), grads, strict=True):
            if grad is not None:
                self.grads[name] += grad
        return grad_input

    @property
    def _allreduce(self) -> Callable[[Array], Array] | None:
        return None if self.communicator is None else self.communicator.allreduce

    def _next_momentum(self) -> float:
        if self.momentum is None and "num_batches_tracked" in self.buffers:
            return 1 / (int(self.buffers["num_batches_tracked"]) + 1)
        return self.momentum or 0.0

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 4 or input_shape[1] != self.num_features:
            raise ValueError(
                f"`input` (of shape {tuple(input_shape)}) must have the form (N, {self.num_features}, H, W)"
            )
        return tuple(input_shape)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={'weight' in self.params}, track_running_stats={'running_mean' in self.buffers}"
        )
