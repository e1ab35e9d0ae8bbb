"""Conv2d."""

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import Generator, IntOrPair, integer, pair
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array
from tinyconv.functional.conv import conv2d_output_shape, conv_window
from tinyconv.layers.layer import Layer, fan_in_uniform


class Conv2d(Layer):
    """Convolution of (N, C, H, W) or (C, H, W) images; formula and shapes in `functional.conv2d`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int, or a pair for height and width.
        padding: an int, a pair, "valid" or "same".
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (O, C / groups, KH, KW) and bias (O,), uniform in +-1 / sqrt(C / groups * KH * KW).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups = integer("groups", groups)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if integer(name, channels) % groups:
                raise ValueError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self._window = conv_window(shape, stride, padding, dilation)
        fan_in = shape[1] * shape[2] * shape[3]
        generator = as_generator(generator)
        self.add_parameter("weight", fan_in_uniform(shape, fan_in, dtype, generator))
        if bias:
            self.add_parameter("bias", fan_in_uniform(shape[:1], fan_in, dtype, generator))

    def forward(self, x: Array) -> Array:
        weight, bias = self.params["weight"], self.params.get("bias")
        return self.save(F.conv2d(x, weight, bias, *self._geometry), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        self._add_grads(grad_output, x)
        return F.conv2d_input(x.shape, self.params["weight"], grad_output, *self._geometry)

    def backward_params(self, grad_output: Array) -> None:
        (x,) = self.saved(grad_output)
        self._add_grads(grad_output, x)

    def _add_grads(self, grad_output: Array, x: Array) -> None:
        weight = self.params["weight"]
        self.grads["weight"] += F.conv2d_weight(x, weight.shape, grad_output, *self._geometry)
        if "bias" in self.grads:
            self.grads["bias"] += F.conv2d_bias(grad_output)

    @property
    def _geometry(self) -> tuple[IntOrPair, IntOrPair | str, IntOrPair, int]:
        return self.stride, self.padding, self.dilation, self.groups

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) == 3:
            return self.output_shape((1, *input_shape))[1:]
        return conv2d_output_shape(tuple(input_shape), self.params["weight"].shape, self._window, self.groups)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        outputs = np.prod(self.output_shape(input_shape), dtype=int)
        return int(outputs * np.prod(self.params["weight"].shape[1:], dtype=int))

    def extra_repr(self) -> str:
        o, c_group = self.params["weight"].shape[:2]
        return (
            f"{c_group * self.groups}, {o}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"bias={'bias' in self.params}"
        )
