"""Explicit gradients of composed convolutions, by hand and with layers.

The loss of a sample is 1/2 ||k * z - y||^2, where * is the convolution that networks compute (no kernel is
rotated), and ||.|| sums over all but the batch. The gradients are those of the sum of these losses over the
batch: by x that is each sample's own gradient, by a kernel it is the sum of the samples' gradients.

Read the network backwards. Call dz the gradient by z. Each step back is one of the two maps

    conv2d_input(x.shape, w, dz)     the gradient by x of z = w * x
    conv2d_weight(x, w.shape, dz)    the gradient by w of z = w * x

with the stride and padding of the convolution that is gone back through, and relu multiplies by its mask:

    (a)  z = x           dz = dx = conv2d_input(x.shape, k, k * x - y)
    (b)  z = w1 * x      dx = conv2d_input(x.shape, w1, dz)    dw1 = conv2d_weight(x, w1.shape, dz)
    (c)  z = w2 * r      dr = conv2d_input(r.shape, w2, dz)    dw2 = conv2d_weight(r, w2.shape, dz)
         r = relu(h)     dh = dr where h > 0, else 0
         h = w1 * x      dx = conv2d_input(x.shape, w1, dh)    dw1 = conv2d_weight(x, w1.shape, dh)

(b) and (c) begin with the dz of (a), with z for its x, or, where z itself is compared with y, with z - y.
The layers do this arithmetic too, in the same order, so both ways usually agree to the last bit.

Run it: python examples/composed_gradients.py
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

import tinyconv as tc
import tinyconv.functional as F
from tinyconv.arrays import Array

Gradients: TypeAlias = dict[str, Array]


# By hand


def gradients_a(x: Array, k: Array, y: Array) -> Gradients:
    """By x, of 1/2 ||k * x - y||^2; k moves by its own size, so that its windows tile the image."""
    stride = k.shape[2:]
    residual = F.conv2d(x, k, stride=stride) - y
    return {"x": F.conv2d_input(x.shape, k, residual, stride=stride)}


def gradients_b(x: Array, w1: Array, y: Array, k: Array | None = None) -> Gradients:
    """By x and w1, for z = w1 * x, of 1/2 ||z - y||^2 or, with a `k`, of 1/2 ||k * z - y||^2."""
    z = F.conv2d(x, w1, padding=1)
    grad_z = z - y if k is None else gradients_a(z, k, y)["x"]
    return {
        "x": F.conv2d_input(x.shape, w1, grad_z, padding=1),
        "w1": F.conv2d_weight(x, w1.shape, grad_z, padding=1),
    }


def gradients_c(x: Array, w1: Array, w2: Array, y: Array, k: Array | None = None) -> Gradients:
    """By x, w1 and w2, for z = w2 * relu(w1 * x), of the losses of `gradients_b`."""
    hidden = F.conv2d(x, w1, padding=1)
    activation = np.maximum(hidden, 0)
    z = F.conv2d(activation, w2, padding=1)
    grad_z = z - y if k is None else gradients_a(z, k, y)["x"]
    grad_activation = F.conv2d_input(activation.shape, w2, grad_z, padding=1)
    grad_hidden = grad_activation * (hidden > 0)
    return {
        "x": F.conv2d_input(x.shape, w1, grad_hidden, padding=1),
        "w1": F.conv2d_weight(x, w1.shape, grad_hidden, padding=1),
        "w2": F.conv2d_weight(activation, w2.shape, grad_z, padding=1),
    }


# With layers


def layers_a(x: Array, k: Array, y: Array) -> Gradients:
    """`gradients_a` with layers."""
    return backward({"k": conv(k, stride=k.shape[2])}, x, y)


def layers_b(x: Array, w1: Array, y: Array, k: Array | None = None) -> Gradients:
    """`gradients_b` with layers."""
    outer = {} if k is None else {"k": conv(k, stride=k.shape[2])}
    return backward({"w1": conv(w1, padding=1), **outer}, x, y)


def layers_c(x: Array, w1: Array, w2: Array, y: Array, k: Array | None = None) -> Gradients:
    """`gradients_c` with layers."""
    outer = {} if k is None else {"k": conv(k, stride=k.shape[2])}
    return backward({"w1": conv(w1, padding=1), "relu": tc.ReLU(), "w2": conv(w2, padding=1), **outer}, x, y)


def conv(weight: Array, stride: int = 1, padding: int = 0) -> tc.Conv2d:
    """A convolution without bias that has a copy of `weight`, which is square."""
    o, c, size, _ = weight.shape
    layer = tc.Conv2d(c, o, size, stride, padding, bias=False, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight})
    return layer


def backward(layers: Mapping[str, tc.Layer], x: Array, y: Array) -> Gradients:
    """Gradients by x, w1 and w2 of half the squared error of `layers` one after another."""
    model = tc.Sequential(layers)
    criterion = tc.MSELoss(reduction="sum")
    criterion(model(x), y)
    half = np.array(0.5, x.dtype)
    grad_x = model.backward(criterion.backward(half))
    kernels = {name: model.grads[f"{name}.weight"] for name in ("w1", "w2") if name in layers}
    return {"x": grad_x, **kernels}


# Both, compared


def problem(
    batch: int = 8, channels: int = 32, size: int = 128, filters: int = 512, block: int = 32
) -> dict[str, Array]:
    """Random arrays in float64: images for (a), (b) and (c), kernels and targets."""
    normal = np.random.default_rng(0).standard_normal
    return {
        "image": normal((batch, 1, size, size)),
        "x": normal((batch, channels, size, size)),
        "k": normal((filters, 1, block, block)) / block,
        "w1": normal((1, channels, 3, 3)),
        "w1_hidden": normal((channels, channels, 3, 3)),
        "w2": normal((1, channels, 3, 3)),
        "y": normal((batch, 1, size, size)),
        "y_filtered": normal((batch, filters, size // block, size // block)),
    }


QUESTIONS: dict[str, tuple[Callable[..., Gradients], Callable[..., Gradients], tuple[str, ...]]] = {
    "(a) k * x": (gradients_a, layers_a, ("image", "k", "y_filtered")),
    "(b) w1 * x": (gradients_b, layers_b, ("x", "w1", "y")),
    "(b) k * w1 * x": (gradients_b, layers_b, ("x", "w1", "y_filtered", "k")),
    "(c) w2 * relu(w1 * x)": (gradients_c, layers_c, ("x", "w1_hidden", "w2", "y")),
    "(c) k * w2 * relu(w1 * x)": (gradients_c, layers_c, ("x", "w1_hidden", "w2", "y_filtered", "k")),
}


def both_ways(question: str, arrays: Mapping[str, Array]) -> tuple[Gradients, Gradients]:
    """The gradients by hand and those with layers, on the arrays of `problem`."""
    by_hand, with_layers, names = QUESTIONS[question]
    given = [arrays[name] for name in names]
    return by_hand(*given), with_layers(*given)


def relative_difference(actual: Array, expected: Array) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def main() -> None:
    """Print the gradients' shapes, and how far the two ways are apart."""
    print("gradients of 1/2 ||... - y||^2, by hand and with layers, in float64\n")
    print(f"{'what is compared with y':<27}{'by':<4}{'shape':<22}largest relative difference")
    arrays = problem()
    for question in QUESTIONS:
        by_hand, with_layers = both_ways(question, arrays)
        for name, gradient in by_hand.items():
            difference = relative_difference(gradient, with_layers[name])
            print(f"{question:<27}{name:<4}{gradient.shape!s:<22}{difference:.2g}")


if __name__ == "__main__":
    main()
