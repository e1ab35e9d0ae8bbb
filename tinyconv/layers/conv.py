"""Conv1d, Conv2d and ConvTranspose2d."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import Generator, IntOrPair, check_shape, integer, one_of, pair, single
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module
from tinyconv.functional.activation import bias_relu
from tinyconv.functional.conv.conv1d import conv1d_output_shape, conv1d_window
from tinyconv.functional.conv.conv2d import conv2d_output_shape, conv_window
from tinyconv.functional.conv.conv_transpose2d import Transposed, shortest_size
from tinyconv.functional.conv.unfold import Window
from tinyconv.functional.pad import pad_shape
from tinyconv.layers.layer import Layer, fan_in_uniform

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Convolution(Layer):
    """Base class of the convolutions: channels, groups and parameters."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: IntOrPair,
        dilation: IntOrPair,
        groups: int,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.dilation = stride, dilation
        self.groups = integer("groups", groups)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if integer(name, channels) % groups:
                raise ValueError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")

    def _add_parameters(
        self, shape: tuple[int, ...], bias: bool, dtype: npt.DTypeLike, generator: Generator
    ) -> None:
        generator = as_generator(generator)
        fan_in = int(np.prod(shape[1:]))
        self.add_parameter("weight", fan_in_uniform(shape, fan_in, dtype, generator))
        if bias:
            self.add_parameter("bias", fan_in_uniform((self.out_channels,), fan_in, dtype, generator))

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "groups")
        listed = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.in_channels}, {self.out_channels}, {listed}, bias={'bias' in self.params}"


class PaddedConvolution(Convolution):
    """Base class of Conv1d and Conv2d.

    In another padding mode than zeros the input is padded first, and then convolved without padding;
    backward goes back through both.
    """

    _function: Callable[..., Array]
    _function_input: Callable[..., Array]
    _function_weight: Callable[..., Array]
    _function_bias: Callable[[Array], Array]

    def _set_padding(self, window: Window, padding: IntOrPair | str, padding_mode: str) -> None:
        self.padding = padding
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        self._window, pads = window, window.padding[2 - len(self.kernel_size) :]
        self._pads = [side for around in reversed(pads) for side in around]
        if padding_mode != "zeros":
            self._window = window._replace(padding=((0, 0), (0, 0)))
        padding = padding if padding_mode == "zeros" else 0
        self._geometry = (self.stride, padding, self.dilation, self.groups)

    def forward(self, x: Array) -> Array:
        padded = self._padded(x)
        weight, bias = self.params["weight"], self.params.get("bias")
        return self.save(self._function(padded, weight, bias, *self._geometry), x, padded)

    def forward_relu(self, x: Array, relu: Layer) -> Array:
        """`forward`, and that of the `relu` after it, in one kernel with the bias."""
        padded, batched = self._padded(x), x.ndim == len(self.kernel_size) + 2
        output = self._function(padded, self.params["weight"], None, *self._geometry)
        bias_relu(output if batched else output[None], self.params["bias"])
        return relu.save(self.save(output, x, padded), output)

    def backward(self, grad_output: Array) -> Array:
        x, padded = self.saved(grad_output)
        self._add_grads(grad_output, padded)
        grad = self._function_input(padded.shape, self.params["weight"], grad_output, *self._geometry)
        return self._padded_backward(grad, x)

    def backward_params(self, grad_output: Array) -> None:
        _, padded = self.saved(grad_output)
        self._add_grads(grad_output, padded)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        x, padded = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        check_shape("x_dot", x_dot, x.shape, "of the input")
        padded_dot = self._padded(x_dot)
        output_dot = self._function(*self._joined(padded_dot, padded, weight_dot), bias_dot, *self._geometry)
        if weight_dot is not None and self.groups > 1:
            output_dot += self._function(padded, weight_dot, None, *self._geometry)
        return self.save_tangents(output_dot, padded_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x, padded), (padded_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        shape, size, geometry = self.params["weight"].shape, padded.shape, self._geometry
        for image, grads in ((padded, grad_output_dot), (padded_dot, grad_output)):
            self.add_grad_dot("weight", self._function_weight(image, shape, grads, *geometry))
        if "bias" in self.params:
            self.add_grad_dot("bias", self._function_bias(grad_output_dot))
        grads, kernels = self._joined(grad_output_dot, grad_output, weight_dot, outputs=True)
        grad_dot = self._function_input(size, kernels, grads, *geometry)
        if weight_dot is not None and self.groups > 1:
            grad_dot += self._function_input(size, weight_dot, grad_output, *geometry)
        return self._padded_backward(grad_dot, x)

    def _joined(
        self, moving: Array, still: Array, weight_dot: Array | None, outputs: bool = False
    ) -> tuple[Array, Array]:
        """`moving` and the weight; or with their channels side by side `still` and `weight_dot` as well.

        Then one convolution makes the sum of two. Groups would have to be joined one by one.
        """
        weight = self.params["weight"]
        if weight_dot is None or self.groups > 1:
            return moving, weight
        concatenate = array_module(weight).concatenate
        channels = -1 - len(self.kernel_size)
        both = concatenate((moving, still), axis=channels)
        return both, concatenate((weight, weight_dot), axis=0 if outputs else 1)

    def _add_grads(self, grad_output: Array, padded: Array) -> None:
        shape = self.params["weight"].shape
        if "weight" in self.grads:
            self.grads["weight"] += self._function_weight(padded, shape, grad_output, *self._geometry)
        if "bias" in self.grads:
            self.grads["bias"] += self._function_bias(grad_output)

    def _padded(self, x: Array) -> Array:
        return x if self.padding_mode == "zeros" else F.pad(x, self._pads, self.padding_mode)

    def _padded_backward(self, grad_padded: Array, x: Array) -> Array:
        if self.padding_mode == "zeros":
            return grad_padded
        return F.pad_backward(grad_padded, x, self._pads, self.padding_mode)

    def _padded_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        zeros = self.padding_mode == "zeros"
        return tuple(input_shape) if zeros else pad_shape(tuple(input_shape), self._pads, self.padding_mode)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        outputs = np.prod(self.output_shape(input_shape), dtype=int)
        return int(outputs * np.prod(self.params["weight"].shape[1:], dtype=int))

    def extra_repr(self) -> str:
        mode = "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode!r}"
        return super().extra_repr() + mode


class Conv1d(PaddedConvolution):
    """Convolution of (N, C, L) or (C, L) sequences; formula and shapes in `functional.conv1d`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int or a sequence of one.
        padding: the same, or "valid" or "same".
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (O, C / groups, K) and bias (O,), uniform in +-1 / sqrt(C / groups * K).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    _function = staticmethod(F.conv1d)
    _function_input = staticmethod(F.conv1d_input)
    _function_weight = staticmethod(F.conv1d_weight)
    _function_bias = staticmethod(F.conv1d_bias)

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
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        size = (single("kernel_size", kernel_size),)
        super().__init__(in_channels, out_channels, size, stride, dilation, groups)
        shape = (out_channels, in_channels // groups, *size)
        self._set_padding(conv1d_window(shape, stride, padding, dilation), padding, padding_mode)
        self._add_parameters(shape, bias, dtype, generator)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = self._padded_shape(input_shape)
        return conv1d_output_shape(shape, self.params["weight"].shape, self._window, self.groups)


class Conv2d(PaddedConvolution):
    """Convolution of (N, C, H, W) or (C, H, W) images; formula and shapes in `functional.conv2d`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int, or a pair for height and width.
        padding: an int, a pair, "valid" or "same".
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (O, C / groups, KH, KW) and bias (O,), uniform in +-1 / sqrt(C / groups * KH * KW).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    _function = staticmethod(F.conv2d)
    _function_input = staticmethod(F.conv2d_input)
    _function_weight = staticmethod(F.conv2d_weight)
    _function_bias = staticmethod(F.conv2d_bias)

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
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        size = pair("kernel_size", kernel_size)
        super().__init__(in_channels, out_channels, size, stride, dilation, groups)
        shape = (out_channels, in_channels // groups, *size)
        self._set_padding(conv_window(shape, stride, padding, dilation), padding, padding_mode)
        self._add_parameters(shape, bias, dtype, generator)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) == 3:
            return self.output_shape((1, *input_shape))[1:]
        shape = self._padded_shape(input_shape)
        return conv2d_output_shape(shape, self.params["weight"].shape, self._window, self.groups)


class ConvTranspose2d(Convolution):
    """Transposed convolution of (N, C, H, W) or (C, H, W) images; see `functional.conv_transpose2d`.

    Its forward takes the output's size as a second argument, `forward(x, output_size=None)`: (OH, OW), or
    a whole shape that ends so. It replaces `output_padding` where the stride leaves a choice.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, output_padding, dilation: an int, or a pair for height and width.
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", as in PyTorch.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (C, O / groups, KH, KW) and bias (O,), uniform in +-1 / sqrt(O / groups * KH * KW).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        output_padding: IntOrPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrPair = 1,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        size = pair("kernel_size", kernel_size)
        super().__init__(in_channels, out_channels, size, stride, dilation, groups)
        one_of("padding_mode", padding_mode, ("zeros",))
        self._window = Window.of(size, stride, padding, dilation)
        self.padding = padding
        self.output_padding = pair("output_padding", output_padding, minimum=0)
        self._add_parameters((in_channels, out_channels // groups, *size), bias, dtype, generator)

    def forward(self, x: Array, output_size: Sequence[int] | None = None) -> Array:
        geometry = self._geometry(x.shape, output_size)
        weight, bias = self.params["weight"], self.params.get("bias")
        return self.save(F.conv_transpose2d(x, weight, bias, *geometry), x, geometry)

    def backward(self, grad_output: Array) -> Array:
        x, geometry = self.saved(grad_output)
        weight, bias = self.params["weight"], self.params.get("bias")
        grad_input, *grads = F.conv_transpose2d_backward(grad_output, x, weight, bias, *geometry)
        for name, grad in zip(("weight", "bias"), grads, strict=True):
            if grad is not None and name in self.grads:
                self.grads[name] += grad
        return grad_input

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        x, geometry = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        check_shape("x_dot", x_dot, x.shape, "of the input")
        output_dot = F.conv_transpose2d(x_dot, self.params["weight"], bias_dot, *geometry)
        if weight_dot is not None:
            output_dot += F.conv_transpose2d(x, weight_dot, None, *geometry)
        return self.save_tangents(output_dot, x_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x, geometry), (x_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        weight, bias = self.params["weight"], self.params.get("bias")
        grad_dot, *grads = F.conv_transpose2d_backward(grad_output_dot, x, weight, bias, *geometry)
        moved_weight = weight if weight_dot is None else weight_dot
        moved, *moved_grads = F.conv_transpose2d_backward(grad_output, x_dot, moved_weight, None, *geometry)
        for name, grad in zip(("weight", "bias", "weight"), (*grads, moved_grads[0]), strict=True):
            if grad is not None:
                self.add_grad_dot(name, grad)
        return grad_dot if weight_dot is None else grad_dot + moved

    def _geometry(self, input_shape: tuple[int, ...], output_size: Sequence[int] | None) -> tuple[Any, ...]:
        """The options of `functional.conv_transpose2d`, with the output padding that gives `output_size`."""
        extra = self.output_padding
        if output_size is not None:
            shortest = shortest_size(self._window, input_shape[-2:])
            if len(output_size) not in (2, len(input_shape)):
                raise ValueError(
                    f"`output_size` (={output_size}) must be (OH, OW) or the output's whole shape"
                )
            wanted = pair("output_size", tuple(output_size)[-2:])
            extra = (wanted[0] - shortest[0], wanted[1] - shortest[1])
            if any(not 0 <= e < s for e, s in zip(extra, self._window.stride, strict=True)):
                raise ValueError(
                    f"`output_size` (={tuple(output_size)}) must be {shortest}, or larger by less than "
                    f"`stride` (={self._window.stride})"
                )
        return self.stride, self.padding, extra, self.groups, self.dilation

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        options = self._geometry(input_shape, None)
        geometry = Transposed.of(tuple(input_shape), self.params["weight"].shape, *options)
        return *input_shape[:-3], self.out_channels, *geometry.size

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        self.output_shape(input_shape)
        return int(np.prod(input_shape, dtype=int) * np.prod(self.params["weight"].shape[1:], dtype=int))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output_padding={self.output_padding}"
