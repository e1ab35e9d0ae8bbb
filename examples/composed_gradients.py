"""Explicit gradients of composed convolutions: each formula, computed directly and with layers.

The loss of a sample is 1/2 ||k * z - y||^2, where * is the convolution that networks compute (no kernel is
rotated), and ||.|| sums over all but the batch. The gradients are those of the sum of these losses over the
batch: with respect to x that is each sample's own gradient, with respect to a kernel the sum of the samples'.

Go through the network in reverse. Let dz be the gradient with respect to z. Each step is one of two maps

    conv2d_input(x.shape, w, dz)     the gradient of z = w * x with respect to x
    conv2d_weight(x, w.shape, dz)    the gradient of z = w * x with respect to w

with the stride and padding of the forward convolution, and relu multiplies by its mask:

    (a)  z = x           dz = dx = conv2d_input(x.shape, k, k * x - y)
    (b)  z = w1 * x      dx = conv2d_input(x.shape, w1, dz)    dw1 = conv2d_weight(x, w1.shape, dz)
    (c)  z = w2 * r      dr = conv2d_input(r.shape, w2, dz)    dw2 = conv2d_weight(r, w2.shape, dz)
         r = relu(h)     dh = dr where h > 0, else 0
         h = w1 * x      dx = conv2d_input(x.shape, w1, dh)    dw1 = conv2d_weight(x, w1.shape, dh)

(b) and (c) begin with the dz of (a), with z in place of x, or, if z itself is compared with y, with z - y.

The script checks each gradient twice: against layers, which do the same arithmetic, so that both usually
agree to the last bit; and, for small arrays, against differences of a loss in plain NumPy, which uses nothing
of tinyconv.

Run it: python examples/composed_gradients.py
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

import tinyconv as tc
import tinyconv.functional as F
from tinyconv.arrays import Array

Gradients: TypeAlias = dict[str, Array]

ANSWER = """\
Go through the network in reverse, from dz = z - y for the loss 1/2 ||z - y||^2 of the last output z.
  z = w * x:    dx = conv2d_input(x.shape, w, dz)     with the stride and padding of forward
                dw = conv2d_weight(x, w.shape, dz)    with the stride and padding of forward
  r = relu(h):  dh = dr where h > 0, else 0
The dx of each step is the dz of the step before it. So these are the gradients, one formula each:
"""


# The formulas


def gradients_a(x: Array, k: Array, y: Array) -> Gradients:
    """Return the gradient of 1/2 ||k * x - y||^2 for x; the stride is the size of k, whose windows tile x."""
    stride = k.shape[2:]
    residual = F.conv2d(x, k, stride=stride) - y
    return {"x": F.conv2d_input(x.shape, k, residual, stride=stride)}


def gradients_b(x: Array, w1: Array, y: Array, k: Array | None = None) -> Gradients:
    """Return those for x and w1, z = w1 * x, of 1/2 ||z - y||^2 or, with a `k`, of 1/2 ||k * z - y||^2."""
    z = F.conv2d(x, w1, padding=1)
    grad_z = z - y if k is None else gradients_a(z, k, y)["x"]
    return {
        "x": F.conv2d_input(x.shape, w1, grad_z, padding=1),
        "w1": F.conv2d_weight(x, w1.shape, grad_z, padding=1),
    }


def gradients_c(x: Array, w1: Array, w2: Array, y: Array, k: Array | None = None) -> Gradients:
    """Return those for x, w1 and w2, z = w2 * relu(w1 * x), of the losses of `gradients_b`."""
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
    """Return `gradients_a`, computed with layers."""
    return backward({"k": conv(k, stride=k.shape[2])}, x, y)


def layers_b(x: Array, w1: Array, y: Array, k: Array | None = None) -> Gradients:
    """Return `gradients_b`, computed with layers."""
    outer = {} if k is None else {"k": conv(k, stride=k.shape[2])}
    return backward({"w1": conv(w1, padding=1), **outer}, x, y)


def layers_c(x: Array, w1: Array, w2: Array, y: Array, k: Array | None = None) -> Gradients:
    """Return `gradients_c`, computed with layers."""
    outer = {} if k is None else {"k": conv(k, stride=k.shape[2])}
    return backward({"w1": conv(w1, padding=1), "relu": tc.ReLU(), "w2": conv(w2, padding=1), **outer}, x, y)


def conv(weight: Array, stride: int = 1, padding: int = 0) -> tc.Conv2d:
    """Return a convolution without bias that has a copy of `weight`, which is square."""
    o, c, size, _ = weight.shape
    layer = tc.Conv2d(c, o, size, stride, padding, bias=False, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight})
    return layer


def backward(layers: Mapping[str, tc.Layer], x: Array, y: Array) -> Gradients:
    """Return the gradients for x, w1 and w2 of half the squared error of `layers` in sequence."""
    model = tc.Sequential(layers)
    criterion = tc.MSELoss(reduction="sum")
    criterion(model(x), y)
    half = np.array(0.5, x.dtype)
    grad_x = model.backward(criterion.backward(half))
    kernels = {name: model.grads[f"{name}.weight"] for name in ("w1", "w2") if name in layers}
    return {"x": grad_x, **kernels}


# The loss in plain NumPy, and its differences


def plain_conv2d(x: Array, w: Array, stride: int = 1, padding: int = 0) -> Array:
    """Convolve by the definition: sum over the taps (i, j) w[:, :, i, j] times the pixels that they see."""
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    height, width = ((x.shape[axis] - w.shape[axis]) // stride + 1 for axis in (2, 3))
    output = np.zeros((len(x), len(w), height, width))
    for i, j in np.ndindex(w.shape[2:]):
        seen = x[:, :, i : i + height * stride : stride, j : j + width * stride : stride]
        output += np.einsum("oc,ncpq->nopq", w[:, :, i, j], seen)
    return output


def plain_loss(
    x: Array, y: Array, k: Array | None = None, w1: Array | None = None, w2: Array | None = None
) -> float:
    """Compute the loss of any of the questions: half the squared error of the convolutions that are given."""
    z = x if w1 is None else plain_conv2d(x, w1, padding=1)
    if w2 is not None:
        z = plain_conv2d(np.maximum(z, 0), w2, padding=1)
    if k is not None:
        z = plain_conv2d(z, k, stride=k.shape[2])
    return float(np.square(z - y).sum() / 2)


def difference_error(gradient: Array, name: str, given: Mapping[str, Array], step: float = 1e-6) -> float:
    """Return the relative error of `gradient` along a random direction, against a central difference."""
    direction = np.random.default_rng(1).standard_normal(gradient.shape)
    above, below = (plain_loss(**{**given, name: given[name] + e * direction}) for e in (step, -step))
    expected = (above - below) / (2 * step)
    return abs(float((gradient * direction).sum()) - expected) / abs(expected)


# All of them, compared

SMALL = {"batch": 2, "channels": 3, "size": 12, "filters": 5, "block": 4}


def problem(
    batch: int = 8, channels: int = 32, size: int = 128, filters: int = 512, block: int = 32
) -> dict[str, Array]:
    """Return random arrays in float64: images for (a), (b) and (c), kernels and targets."""
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


# question: the two functions, and for each of their arguments the array of `problem`
QUESTIONS: dict[str, tuple[Callable[..., Gradients], Callable[..., Gradients], dict[str, str]]] = {
    "(a) k * x": (gradients_a, layers_a, {"x": "image", "k": "k", "y": "y_filtered"}),
    "(b) w1 * x": (gradients_b, layers_b, {"x": "x", "w1": "w1", "y": "y"}),
    "(b) k * w1 * x": (gradients_b, layers_b, {"x": "x", "w1": "w1", "y": "y_filtered", "k": "k"}),
    "(c) w2 * relu(w1 * x)": (gradients_c, layers_c, {"x": "x", "w1": "w1_hidden", "w2": "w2", "y": "y"}),
    "(c) k * w2 * relu(w1 * x)": (
        gradients_c,
        layers_c,
        {"x": "x", "w1": "w1_hidden", "w2": "w2", "y": "y_filtered", "k": "k"},
    ),
}
ONE = {"dx": "conv2d_input(x.shape, w1, dz)", "dw1": "conv2d_weight(x, w1.shape, dz)"}
TWO = {
    "dw2": "conv2d_weight(r, w2.shape, dz)",
    "dr": "conv2d_input(r.shape, w2, dz)",
    "dh": "dr where h > 0, else 0",
    "dx": "conv2d_input(x.shape, w1, dh)",
    "dw1": "conv2d_weight(x, w1.shape, dh)",
}
FORMULAS: dict[str, dict[str, str]] = {
    "(a) k * x": {"dx": "conv2d_input(x.shape, k, k * x - y)"},
    "(b) w1 * x": {"dz": "z - y", **ONE},
    "(b) k * w1 * x": {"dz": "conv2d_input(z.shape, k, k * z - y)", **ONE},
    "(c) w2 * relu(w1 * x)": {"dz": "z - y", **TWO},
    "(c) k * w2 * relu(w1 * x)": {"dz": "conv2d_input(z.shape, k, k * z - y)", **TWO},
}


def both_ways(question: str, arrays: Mapping[str, Array]) -> tuple[Gradients, Gradients]:
    """Return the gradients by the formulas and those with layers, for the arrays of `problem`."""
    by_formula, with_layers, names = QUESTIONS[question]
    given = [arrays[name] for name in names.values()]
    return by_formula(*given), with_layers(*given)


def difference_errors(question: str, arrays: Mapping[str, Array]) -> dict[str, float]:
    """Return for each gradient its `difference_error`, for the arrays of `problem`."""
    by_formula, _, names = QUESTIONS[question]
    given = {argument: arrays[name] for argument, name in names.items()}
    return {name: difference_error(grad, name, given) for name, grad in by_formula(**given).items()}


def relative_difference(actual: Array, expected: Array) -> float:
    """Return the largest difference, relative to the largest expected value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def main() -> None:
    """Print the answer, and each gradient's formula, shape and error; then how far layers differ."""
    print(ANSWER)
    print(f"{'gradients of 1/2 ||... - y||^2, in float64':<50}{'shape':<21}error against differences")
    arrays, small, from_layers = problem(), problem(**SMALL), 0.0
    for question, formulas in FORMULAS.items():
        print(question)
        by_formula, with_layers = both_ways(question, arrays)
        errors = difference_errors(question, small)
        for gradient, formula in formulas.items():
            line, name = f"    {gradient:<4}= {formula}", gradient.removeprefix("d")
            if name in by_formula:
                from_layers = max(from_layers, relative_difference(by_formula[name], with_layers[name]))
                line = f"{line:<50}{by_formula[name].shape!s:<21}{errors[name]:.1e}"
            print(line)
    print(
        "\nError: of a directional derivative of small arrays, against differences of a loss in plain NumPy."
    )
    print(f"Layers compute the same gradients, with a relative difference of at most {from_layers:.1e}.")


if __name__ == "__main__":
    main()
