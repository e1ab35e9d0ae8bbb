"""Networks: LeNet-5 and a CNN for MNIST, and ResNet-18, MobileNet, DenseNet and U-Net for small images.

Each is a function that returns a Sequential of layers, to be read, copied and changed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import Generator
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array
from tinyconv.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Identity,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)


def lenet5(
    *, pretrained: bool = False, dtype: npt.DTypeLike = np.float32, generator: Generator = None
) -> Sequential:
    """Build LeNet-5 for (N, 1, 28, 28) images and 10 classes, in its modern form (ReLU, max-pooling).

    Args:
        pretrained: whether to load the weights of the package, which were trained on MNIST (weights/README.md
            says how, and their accuracy). They replace those drawn from `generator`.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86 (1998).

    >>> model = lenet5()
    >>> model.output_shape((8, 1, 28, 28)), sum(array.size for array in model.params.values())
    ((8, 10), 61706)
    >>> model[:6].output_shape((8, 1, 28, 28))  # what the linear layers read
    (8, 16, 5, 5)
    """
    rng = as_generator(generator)
    model = Sequential(
        Conv2d(1, 6, 5, padding=2, dtype=dtype, generator=rng),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5, dtype=dtype, generator=rng),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(400, 120, dtype=dtype, generator=rng),
        ReLU(),
        Linear(120, 84, dtype=dtype, generator=rng),
        ReLU(),
        Linear(84, 10, dtype=dtype, generator=rng),
    )
    if pretrained:
        model.load_state_dict(_shipped_weights("lenet5"))
    return model


def mnist_cnn(*, dtype: npt.DTypeLike = np.float32, generator: Generator = None) -> Sequential:
    """Build a network of two 3x3 convolutions for (N, 1, 28, 28) images and 10 classes, with 2.4M parameters.

    Args:
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    >>> model = mnist_cnn(generator=0)
    >>> model(np.zeros((2, 1, 28, 28), np.float32)).shape, list(model.buffers)
    ((2, 10), ['3.running_mean', '3.running_var', '3.num_batches_tracked'])
    """
    rng = as_generator(generator)
    return Sequential(
        Conv2d(1, 32, 3, dtype=dtype, generator=rng),
        ReLU(),
        Conv2d(32, 64, 3, dtype=dtype, generator=rng),
        BatchNorm2d(64, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(9216, 256, dtype=dtype, generator=rng),
        ReLU(),
        Linear(256, 10, dtype=dtype, generator=rng),
    )


def resnet18(
    num_classes: int = 10, *, dtype: npt.DTypeLike = np.float32, generator: Generator = None
) -> Sequential:
    """Build ResNet-18 for (N, 3, 32, 32) images, with 11.2M parameters.

    As for CIFAR: a 3x3 convolution and no pooling at the start.

    Args:
        num_classes: number of classes.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Source: He et al., https://arxiv.org/abs/1512.03385

    >>> model = resnet18(num_classes=100)
    >>> model.output_shape((1, 3, 32, 32)), model[:-3].output_shape((1, 3, 32, 32))
    ((1, 100), (1, 512, 4, 4))
    """
    options: dict[str, Any] = {"dtype": dtype, "generator": as_generator(generator)}
    c, layers = 64, [*_conv_norm(3, 64, **options), ReLU()]
    for o in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if c == o else 2
        first, second = _conv_norm(c, o, 3, stride, **options), _conv_norm(o, o, **options)
        shortcut = None if c == o else Sequential(*_conv_norm(c, o, 1, stride, **options))
        layers += [Residual(Sequential(*first, ReLU(), *second), shortcut), ReLU()]
        c = o
    return Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(c, num_classes, **options))


def mobilenet(
    num_classes: int = 10, *, dtype: npt.DTypeLike = np.float32, generator: Generator = None
) -> Sequential:
    """Build MobileNet for (N, 3, 32, 32) images, with 3.2M parameters.

    As for CIFAR: stride 1 at the start.

    Args:
        num_classes: number of classes.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Source: Howard et al., https://arxiv.org/abs/1704.04861

    >>> model = mobilenet()
    >>> model.output_shape((1, 3, 32, 32)), model[3]
    ((1, 10), Conv2d(32, 32, (3, 3), padding=(1, 1), groups=32, bias=False))
    """
    options: dict[str, Any] = {"dtype": dtype, "generator": as_generator(generator)}
    c, layers = 32, [*_conv_norm(3, 32, **options), ReLU()]
    for o in (64, 128, 128, 256, 256, *6 * [512], 1024, 1024):
        stride = 2 if o > c > 32 else 1  # images halve where channels double, but for the first time
        layers += [*_conv_norm(c, c, 3, stride, c, **options), ReLU()]
        layers += [*_conv_norm(c, o, 1, **options), ReLU()]
        c = o
    return Sequential(*layers, AdaptiveAvgPool2d(1), Flatten(), Linear(c, num_classes, **options))


def densenet(
    num_classes: int = 10,
    growth_rate: int = 12,
    block_config: Sequence[int] = (4, 4, 4),
    *,
    dtype: npt.DTypeLike = np.float32,
    generator: Generator = None,
) -> Sequential:
    """Build a DenseNet for (N, 3, 32, 32) images: in a block, each layer sees the outputs of all before it.

    Args:
        num_classes: number of classes.
        growth_rate: number of channels that each layer adds.
        block_config: number of layers of each block; between blocks, channels and lengths are halved.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Source: Huang et al., https://arxiv.org/abs/1608.06993

    >>> model = densenet(growth_rate=4, block_config=(2, 2))
    >>> model[:3].output_shape((1, 3, 32, 32))  # 2 * 4 channels at first, and 4 more from each layer
    (1, 16, 32, 32)
    >>> model.output_shape((1, 3, 32, 32))
    (1, 10)
    """
    options: dict[str, Any] = {"dtype": dtype, "generator": as_generator(generator)}

    def norm_conv(c: int, o: int, kernel: int) -> list[Layer]:
        convolution = Conv2d(c, o, kernel, padding=kernel // 2, bias=False, **options)
        return [BatchNorm2d(c, dtype=dtype), ReLU(), convolution]

    c = 2 * growth_rate
    layers: list[Layer] = [Conv2d(3, c, 3, padding=1, bias=False, **options)]
    for number, depth in enumerate(block_config):
        if number:
            layers += [*norm_conv(c, c // 2, 1), AvgPool2d(2)]
            c //= 2
        for _ in range(depth):
            layers.append(Concat(Identity(), Sequential(*norm_conv(c, growth_rate, 3))))
            c += growth_rate
    layers += [BatchNorm2d(c, dtype=dtype), ReLU(), AdaptiveAvgPool2d(1), Flatten()]
    return Sequential(*layers, Linear(c, num_classes, **options))


def unet(
    in_channels: int = 1,
    num_classes: int = 2,
    width: int = 16,
    depth: int = 3,
    *,
    dtype: npt.DTypeLike = np.float32,
    generator: Generator = None,
) -> Sequential:
    """Build a U-Net: scores of the classes of each pixel, (N, num_classes, H, W).

    Args:
        in_channels: number of the images' channels; H and W must be divisible by 2**depth.
        num_classes: number of classes.
        width: number of channels of the first level; each level below has twice as many.
        depth: number of times that the image is halved.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Source: Ronneberger et al., https://arxiv.org/abs/1505.04597; with padding, and batch norm.

    >>> model = unet(width=4, depth=2, generator=0)
    >>> model(np.zeros((1, 1, 16, 24), np.float32)).shape
    (1, 2, 16, 24)
    """
    options: dict[str, Any] = {"dtype": dtype, "generator": as_generator(generator)}

    def level(c: int, o: int, depth: int) -> list[Layer]:
        """Two convolutions; a skip around all that is below; two convolutions of both."""
        layers = [*_conv_norm(c, o, **options), ReLU(), *_conv_norm(o, o, **options), ReLU()]
        if depth:
            below = Sequential(
                MaxPool2d(2), *level(o, 2 * o, depth - 1), ConvTranspose2d(2 * o, o, 2, 2, **options)
            )
            layers += [Concat(Identity(), below), *_conv_norm(2 * o, o, **options), ReLU()]
            layers += [*_conv_norm(o, o, **options), ReLU()]
        return layers

    return Sequential(*level(in_channels, width, depth), Conv2d(width, num_classes, 1, **options))


def _conv_norm(
    c: int, o: int, kernel: int = 3, stride: int = 1, groups: int = 1, **options: Any
) -> list[Layer]:
    """A convolution without bias, and its batch norm."""
    convolution = Conv2d(c, o, kernel, stride, kernel // 2, groups=groups, bias=False, **options)
    return [convolution, BatchNorm2d(o, dtype=options["dtype"])]


def _shipped_weights(name: str) -> dict[str, Array]:
    from importlib.resources import files

    from safetensors.numpy import load

    return load((files("tinyconv") / "weights" / f"{name}.safetensors").read_bytes())
