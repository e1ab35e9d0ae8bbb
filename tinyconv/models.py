"""The two networks of the examples and benchmarks."""

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import Generator
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array
from tinyconv.layers import BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


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


def _shipped_weights(name: str) -> dict[str, Array]:
    from importlib.resources import files

    from safetensors.numpy import load

    return load((files("tinyconv") / "weights" / f"{name}.safetensors").read_bytes())
