"""Conv1d, Conv2d, ConvTranspose1d and ConvTranspose2d."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import (
    Generator,
    IntOrPair,
    Pair,
    check_kinds,
    check_shape,
    integer,
    one_of,
    pair,
    single,
)
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, formatted
from tinyconv.functional.conv.algorithms import NAMES
from tinyconv.functional.conv.conv1d import options_2d
from tinyconv.functional.conv.conv_transpose2d import transposed_geometry, transposed_gradients
from tinyconv.functional.conv.geometry import conv_geometry, named_padding
from tinyconv.functional.one_row import with_row, without_row
from tinyconv.functional.pad import pad_shape
from tinyconv.layers.affine import Affine
from tinyconv.layers.attributes import Parameter
from tinyconv.layers.function import OfFunction
from tinyconv.layers.initialization import fan_in_uniform
from tinyconv.layers.layer import Layer

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Convolution(Layer):
    """Base class of the convolutions: window, channels, groups and parameters."""

    _sizes: Callable[..., tuple[int, ...]]  # an option as a number for each direction, checked

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair,
        dilation: IntOrPair,
        groups: int,
        algorithm: str | None,
    ) -> None:
        super().__init__()
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride, self.dilation = self._sizes("stride", stride), self._sizes("dilation", dilation)
        self.in_channels = integer("in_channels", in_channels)
        self.out_channels = integer("out_channels", out_channels)
        self.groups = integer("groups", groups)
        self.algorithm = None if algorithm is None else one_of("algorithm", algorithm, NAMES)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")

    def _add_parameters(
        self, shape: tuple[int, ...], bias: bool, dtype: npt.DTypeLike, generator: Generator
    ) -> None:
        generator = as_generator(generator)
        fan_in = int(np.prod(shape[1:]))
        self.weight = Parameter(fan_in_uniform(shape, fan_in, dtype, generator))
        own = (self.out_channels,)
        self.bias = Parameter(fan_in_uniform(own, fan_in, dtype, generator)) if bias else None


class PaddedConvolution(OfFunction, Convolution, Affine):
    """Base class of Conv1d and Conv2d.

    In a padding mode other than "zeros" the input is padded first, and then convolved without padding;
    backward runs through both.
    """

    _function_input: Callable[..., Array]
    _function_weight: Callable[..., Array]
    _function_bias: Callable[[Array], Array]

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
        algorithm: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, algorithm)
        self.padding = padding if isinstance(padding, str) else self._sizes("padding", padding, minimum=0)
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        _ = self.pads  # refuses a padding by an unknown name
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self._add_parameters(shape, bias, dtype, generator)

    @property
    def pads(self) -> list[int]:
        """Return the padding as `functional.pad` takes it: around the last dimension first."""
        padding = self.padding if isinstance(self.padding, str) else _two(self.padding, 0)
        window = (_two(option, 1) for option in (self.kernel_size, self.stride, self.dilation))
        pads = named_padding(padding, *window)
        return [side for around in reversed(pads[2 - len(self.kernel_size) :]) for side in around]

    @property
    def _geometry(self) -> tuple[Any, ...]:
        """The options of `functional.conv2d`, for an input that is padded."""
        padding = self.padding if self.padding_mode == "zeros" else (0,) * len(self.kernel_size)
        return self.stride, padding, self.dilation, self.groups

    def product(self, x: Array, bias: Array | None) -> Array:
        padded, weight = self._padded(x), self._params["weight"]
        output = self._function(padded, weight, bias, *self._geometry, algorithm=self.algorithm)
        return self.save(output, x, padded)

    def product_backward(self, grad_output: Array, wants_input: bool = True) -> Any:
        x, padded = self.saved(grad_output)
        if wants_input and grad_output.ndim == len(self.kernel_size) + 2:
            grad_output = formatted(grad_output)
        weight, options = self._params["weight"], self._geometry
        if "weight" in self._grads:
            self._grads["weight"] += self._function_weight(
                padded, weight.shape, grad_output, *options, algorithm=self.algorithm
            )
        if not wants_input:
            return None
        grad = self._function_input(padded.shape, weight, grad_output, *options, algorithm=self.algorithm)
        return self._padded_backward(grad, x)

    def bias_gradient(self, grad_output: Array) -> Array:
        return self._function_bias(grad_output)

    def as_batch(self, y: Array) -> Array:
        return y if y.ndim == len(self.kernel_size) + 2 else y[None]

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        x, padded = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        check_shape("x_dot", x_dot, x.shape, "of the input")
        padded_dot = self._padded(x_dot)
        output_dot = self._function(
            *self._joined(padded_dot, padded, weight_dot), bias_dot, *self._geometry, algorithm=self.algorithm
        )
        if weight_dot is not None and self.groups > 1:
            output_dot += self._function(padded, weight_dot, None, *self._geometry, algorithm=self.algorithm)
        return self.save_tangents(output_dot, padded_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x, padded), (padded_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        shape, size, geometry = self._params["weight"].shape, padded.shape, self._geometry
        for image, grads in ((padded, grad_output_dot), (padded_dot, grad_output)):
            self.add_grad_dot(
                "weight", self._function_weight(image, shape, grads, *geometry, algorithm=self.algorithm)
            )
        if "bias" in self._params:
            self.add_grad_dot("bias", self._function_bias(grad_output_dot))
        grads, kernels = self._joined(grad_output_dot, grad_output, weight_dot, outputs=True)
        grad_dot = self._function_input(size, kernels, grads, *geometry, algorithm=self.algorithm)
        if weight_dot is not None and self.groups > 1:
            grad_dot += self._function_input(
                size, weight_dot, grad_output, *geometry, algorithm=self.algorithm
            )
        return self._padded_backward(grad_dot, x)

    def _joined(
        self, moving: Array, still: Array, weight_dot: Array | None, outputs: bool = False
    ) -> tuple[Array, Array]:
        """`moving` and the weight; or, with their channels concatenated, `still` and `weight_dot` as well.

        Then one convolution computes the sum of two. Groups would have to be concatenated one by one.
        """
        weight = self._params["weight"]
        if weight_dot is None or self.groups > 1:
            return moving, weight
        concatenate = array_module(weight).concatenate
        channels = -1 - len(self.kernel_size)
        both = concatenate((moving, still), axis=channels)
        return both, concatenate((weight, weight_dot), axis=0 if outputs else 1)

    def _padded(self, x: Array) -> Array:
        return x if self.padding_mode == "zeros" else F.pad(x, self.pads, self.padding_mode)

    def _padded_backward(self, grad_padded: Array, x: Array) -> Array:
        if self.padding_mode == "zeros":
            return grad_padded
        return F.pad_backward(grad_padded, x, self.pads, self.padding_mode)

    def _padded_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        zeros = self.padding_mode == "zeros"
        return tuple(input_shape) if zeros else pad_shape(tuple(input_shape), self.pads, self.padding_mode)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        outputs = np.prod(self.output_shape(input_shape), dtype=int)
        return int(outputs * np.prod(self._params["weight"].shape[1:], dtype=int))


def _two(option: tuple[int, ...], missing: int) -> Pair:
    """An option for a sequence, (K,), or for an image, (KH, KW), as one for an image."""
    return option[-2] if len(option) == 2 else missing, option[-1]


class Conv1d(PaddedConvolution, function=F.conv1d):
    """Convolve (N, C, L) or (C, L) sequences; formula and shapes in `functional.conv1d`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int or a sequence of one.
        padding: the same, or "valid" or "same".
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        algorithm: "columns", "windows" or "winograd"; by default the shapes decide. Winograd, which is chosen
            for many 3x3 and 5x5 kernels, spreads an outlier or a NaN over a tile of 4x4 outputs.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (O, C / groups, K) and bias (O,), uniform in +-1 / sqrt(C / groups * K).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html

    >>> layer = Conv1d(1, 1, 2, padding="same", padding_mode="circular", bias=False)
    >>> layer.weight = [[[-1.0, 1.0]]]
    >>> layer(np.array([[1.0, 2.0, 4.0]], np.float32)).tolist()  # the last difference is that to the first
    [[1.0, 2.0, -3.0]]
    """

    @staticmethod
    def _sizes(name: str, value: IntOrPair, minimum: int = 1) -> tuple[int, ...]:
        return (single(name, value, minimum),)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape, weight_shape = self._padded_shape(input_shape), self._params["weight"].shape
        options = options_2d(shape, weight_shape, *self._geometry)
        image = (1, shape[-2], 1, shape[-1])
        geometry = conv_geometry(image, (*weight_shape[:2], 1, *weight_shape[2:]), *options)
        return *shape[:-2], self.out_channels, geometry.output_size[1]


class Conv2d(PaddedConvolution, function=F.conv2d):
    """Convolve (N, C, H, W) or (C, H, W) images; formula and shapes in `functional.conv2d`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int, or a pair for height and width.
        padding: an int, a pair, "valid" or "same".
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        algorithm: "columns", "windows" or "winograd"; by default the shapes decide. Winograd, which is chosen
            for many 3x3 and 5x5 kernels, spreads an outlier or a NaN over a tile of 4x4 outputs.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (O, C / groups, KH, KW) and bias (O,), uniform in +-1 / sqrt(C / groups * KH * KW).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html

    >>> layer = Conv2d(8, 4, 3, stride=2, padding=1, groups=2, generator=0)
    >>> layer(np.ones((2, 8, 28, 28), np.float32)).shape, layer.weight.shape
    ((2, 4, 14, 14), (4, 4, 3, 3))
    >>> layer.backward(np.ones((2, 4, 14, 14), np.float32)).shape, layer.grads["bias"].tolist()
    ((2, 8, 28, 28), [392.0, 392.0, 392.0, 392.0])
    """

    _sizes = staticmethod(pair)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) == 3:
            return self.output_shape((1, *input_shape))[1:]
        shape = self._padded_shape(input_shape)
        return conv_geometry(shape, self._params["weight"].shape, *self._geometry).output_shape


class ConvTranspose2d(OfFunction, Convolution, function=F.conv_transpose2d):
    """Compute the transposed convolution of images; see `functional.conv_transpose2d`.

    The input is (N, C, H, W) or (C, H, W). Forward takes the output's size as a second argument, `forward(x,
    output_size=None)`: (OH, OW), or a whole shape that ends in it. It replaces `output_padding` where the
    stride leaves a choice.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, output_padding, dilation: an int, or a pair for height and width.
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", as in PyTorch.
        algorithm: "columns", "windows" or "winograd"; by default the shapes decide. Winograd, which is chosen
            for many 3x3 and 5x5 kernels, spreads an outlier or a NaN over a tile of 4x4 outputs.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (C, O / groups, KH, KW) and bias (O,), uniform in +-1 / sqrt(O / groups * KH * KW).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html

    >>> layer = ConvTranspose2d(1, 1, 2, stride=2, bias=False)
    >>> layer.weight = [[[[1.0, 2.0], [3.0, 4.0]]]]
    >>> layer(np.array([[[1.0, 10.0]]], np.float32)).tolist()
    [[[1.0, 2.0, 10.0, 20.0], [3.0, 4.0, 30.0, 40.0]]]
    """

    _sizes: Callable[..., tuple[int, ...]] = staticmethod(pair)
    _gradients: Callable[..., dict[str, Array]] = staticmethod(transposed_gradients)

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
        algorithm: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, algorithm)
        self.padding_mode = one_of("padding_mode", padding_mode, ("zeros",))
        self.padding = self._sizes("padding", padding, minimum=0)
        self.output_padding = self._sizes("output_padding", output_padding, minimum=0)
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        self._add_parameters(shape, bias, dtype, generator)

    def forward(self, x: Array, output_size: Sequence[int] | None = None) -> Array:
        check_kinds(input=x)
        geometry = self._geometry(x.shape, output_size)
        weight, bias = self._params["weight"], self._params.get("bias")
        return self.save(self._function(x, weight, bias, *geometry, algorithm=self.algorithm), x, geometry)

    def backward(self, grad_output: Array) -> Array:
        return self._backward(grad_output, "input")["input"]

    def backward_params(self, grad_output: Array) -> None:
        self._backward(grad_output)

    def _backward(self, grad_output: Array, *wanted: str) -> dict[str, Array]:
        """Add the gradients of the parameters that are not frozen; return them and those `wanted`."""
        (x, geometry), own = self.saved(grad_output), self._grads
        weight, bias = self._params["weight"], self._params.get("bias")
        grads = self._gradients(grad_output, x, weight, bias, geometry, self.algorithm, (*wanted, *own))
        for name in own:
            own[name] += grads[name]
        return grads

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        x, geometry = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        check_shape("x_dot", x_dot, x.shape, "of the input")
        output_dot = self._function(
            x_dot, self._params["weight"], bias_dot, *geometry, algorithm=self.algorithm
        )
        if weight_dot is not None:
            output_dot += self._function(x, weight_dot, None, *geometry, algorithm=self.algorithm)
        return self.save_tangents(output_dot, x_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x, geometry), (x_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        weight, bias = self._params["weight"], self._params.get("bias")
        grads = self._gradients(
            grad_output_dot, x, weight, bias, geometry, self.algorithm, ("input", *self._params)
        )
        moved = self._gradients(
            grad_output,
            x_dot,
            weight if weight_dot is None else weight_dot,
            None,
            geometry,
            self.algorithm,
            ("weight",) if weight_dot is None else ("input", "weight"),
        )
        grads["weight"] += moved["weight"]
        for name in self._params:
            self.add_grad_dot(name, grads[name])
        return grads["input"] if weight_dot is None else grads["input"] + moved["input"]

    def _geometry(self, input_shape: tuple[int, ...], output_size: Sequence[int] | None) -> tuple[Any, ...]:
        """The options of `functional.conv_transpose2d`, with the output padding that gives `output_size`."""
        extra = self.output_padding
        if output_size is not None:
            count = len(self.kernel_size)
            lengths = self.output_shape(input_shape)[-count:]
            shortest = tuple(length - e for length, e in zip(lengths, extra, strict=True))
            if len(output_size) not in (count, len(input_shape)):
                form = "(OH, OW)" if count == 2 else "(OL,)"
                raise ValueError(f"`output_size` (={output_size}) must be {form} or the output's whole shape")
            wanted = self._sizes("output_size", tuple(output_size)[-count:])
            extra = tuple(length - least for length, least in zip(wanted, shortest, strict=True))
            if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
                raise ValueError(
                    f"`output_size` (={tuple(output_size)}) must be {shortest}, or larger by less than "
                    f"`stride` (={self.stride})"
                )
        return self.stride, self.padding, extra, self.groups, self.dilation

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        options = self._geometry(input_shape, None)
        geometry = transposed_geometry(tuple(input_shape), self._params["weight"].shape, *options)
        return *input_shape[:-3], *geometry.input_shape[1:]

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        self.output_shape(input_shape)
        return int(np.prod(input_shape, dtype=int) * np.prod(self._params["weight"].shape[1:], dtype=int))


class ConvTranspose1d(ConvTranspose2d, function=F.conv_transpose1d):
    """Compute the transposed convolution of sequences; see `functional.conv_transpose1d`.

    The input is (N, C, L) or (C, L). Forward takes the output's length as a second argument, `forward(x,
    output_size=None)`: (OL,), or a whole shape that ends in it. It replaces `output_padding` where the stride
    leaves a choice.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, output_padding, dilation: an int or a sequence of one.
        groups: number of groups; it divides both channel numbers.
        bias: whether to add a bias.
        padding_mode: "zeros", as in PyTorch.
        algorithm: as that of ConvTranspose2d.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (C, O / groups, K) and bias (O,), uniform in +-1 / sqrt(O / groups * K).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose1d.html

    >>> layer, x = ConvTranspose1d(1, 1, 3, stride=2, padding=1), np.ones((1, 1, 4), np.float32)
    >>> layer(x).shape, layer.forward(x, output_size=(8,)).shape
    ((1, 1, 7), (1, 1, 8))
    """

    _sizes = staticmethod(Conv1d._sizes)

    @staticmethod
    def _gradients(
        grad_output: Array, input: Array, weight: Array, bias: Array | None, options: Any, *more: Any
    ) -> dict[str, Array]:
        g, x, w = with_row({"grad_output": grad_output, "input": input, "weight": weight}).values()
        grads = transposed_gradients(g, x, w, bias, _transposed_rows(options), *more)
        return {name: without_row(grad) for name, grad in grads.items()}

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        image, (c, o, k) = (*input_shape[:-1], 1, input_shape[-1]), self._params["weight"].shape
        options = _transposed_rows(self._geometry(input_shape, None))
        *_, length = transposed_geometry(image, (c, o, 1, k), *options).input_shape
        return *input_shape[:-2], self.out_channels, length


def _transposed_rows(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The options of a transposed convolution of sequences as those of images of height 1."""
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    return tuple(with_row(dict(zip(names, options, strict=True))).values())
