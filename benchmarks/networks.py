"""Networks as lists of layers, and from these in tinyconv and PyTorch; two of them also in JAX and DeZero.

"lenet" and "cnn" are those of tinyconv.models, for MNIST. The others are for 32x32 RGB images and 10 classes:

- "resnet18": He et al., https://arxiv.org/abs/1512.03385, with a 3x3 convolution and no pooling at the start;
- "vgg11": Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, with batch norm and one linear layer;
- "mobilenet": Howard et al., https://arxiv.org/abs/1704.04861, with stride 1 at the start.

JAX and DeZero are imported by name, as the type checker does not have them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from harness import UnavailableError

import tinyconv as tc
from tinyconv.arrays import Array

LR, MOMENTUM = 0.01, 0.9
FOR_MNIST = ("lenet", "cnn")

Layers: TypeAlias = list[tuple[Any, ...]]


def _conv(c: int, o: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Layers:
    """A convolution without bias, and its batch norm."""
    return [("conv", c, o, kernel, kernel // 2, stride, groups, False), ("batch_norm", o)]


def _basic_block(c: int, o: int) -> Layers:
    stride = 1 if c == o else 2
    shortcut = [] if c == o else _conv(c, o, 1, stride)
    return [("residual", [*_conv(c, o, 3, stride), ("relu",), *_conv(o, o)], shortcut), ("relu",)]


def _resnet18() -> Layers:
    layers, c = [*_conv(3, 64), ("relu",)], 64
    for o in (64, 128, 256, 512):
        layers += [*_basic_block(c, o), *_basic_block(o, o)]
        c = o
    return [*layers, ("global_pool",), ("flatten",), ("linear", 512, 10)]


def _vgg11() -> Layers:
    layers: Layers = []
    c = 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for o in stage:
            layers += [("conv", c, o, 3, 1), ("batch_norm", o), ("relu",)]
            c = o
        layers.append(("pool",))
    return [*layers, ("flatten",), ("linear", 512, 10)]


def _mobilenet() -> Layers:
    layers, c = [*_conv(3, 32), ("relu",)], 32
    for o in (64, 128, 128, 256, 256, *6 * [512], 1024, 1024):
        stride = 2 if o > c > 32 else 1  # images halve where channels double, but for the first time
        layers += [*_conv(c, c, 3, stride, groups=c), ("relu",), *_conv(c, o, 1), ("relu",)]
        c = o
    return [*layers, ("global_pool",), ("flatten",), ("linear", 1024, 10)]


# ("conv", channels in, out, kernel, padding and, for not all, stride, groups, whether it has a bias),
# ("linear", features in, out), ("batch_norm", channels), ("residual", layers of the body, of the shortcut)
NETWORKS: dict[str, Layers] = {
    "lenet": [
        ("conv", 1, 6, 5, 2),
        ("relu",),
        ("pool",),
        ("conv", 6, 16, 5, 0),
        ("relu",),
        ("pool",),
        ("flatten",),
        ("linear", 400, 120),
        ("relu",),
        ("linear", 120, 84),
        ("relu",),
        ("linear", 84, 10),
    ],
    "cnn": [
        ("conv", 1, 32, 3, 0),
        ("relu",),
        ("conv", 32, 64, 3, 0),
        ("batch_norm", 64),
        ("relu",),
        ("pool",),
        ("flatten",),
        ("linear", 9216, 256),
        ("relu",),
        ("linear", 256, 10),
    ],
    "resnet18": _resnet18(),
    "vgg11": _vgg11(),
    "mobilenet": _mobilenet(),
}


def image_shape(model: str) -> tuple[int, int, int]:
    """Return channels, height and width of the network's images."""
    return (1, 28, 28) if model in FOR_MNIST else (3, 32, 32)


def _check_for_mnist(model: str) -> None:
    if model not in FOR_MNIST:
        raise UnavailableError(f"it is written for {' and '.join(FOR_MNIST)} only")


def products(model: str) -> list[tuple[int, int, int]]:
    """Return for each weight matrix its rows and columns, and how many columns per image it multiplies."""
    _check_for_mnist(model)
    sizes: list[tuple[int, int, int]] = []
    side = 28
    for kind, *numbers in NETWORKS[model]:
        if kind == "conv":
            c, o, kernel, padding = numbers
            side += 2 * padding - kernel + 1
            sizes.append((o, c * kernel * kernel, side * side))
        elif kind == "pool":
            side //= 2
        elif kind == "linear":
            sizes.append((numbers[1], numbers[0], 1))
    return sizes


def tinyconv_network(model: str) -> tc.Sequential:
    """Return the network as a tinyconv.Sequential."""
    network: tc.Sequential = _sequential(tc, tc.Residual, NETWORKS[model], generator=np.random.default_rng(0))
    return network


def pytorch_network(model: str) -> Any:
    """Return the network as a torch.nn.Sequential, with the parameter names of `tinyconv_network`."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: torch.Tensor) -> Any:
            return self.body(x) + (x if self.shortcut is None else self.shortcut(x))

    torch.manual_seed(0)
    return _sequential(nn, Residual, NETWORKS[model])


def _sequential(kinds: Any, residual: Any, layers: Layers, **drawn: Any) -> Any:
    """The layers by the classes of `kinds`; those that draw their parameters also take `drawn`."""

    def made(layers: Layers) -> Any:
        return kinds.Sequential(*(make[kind](*numbers) for kind, *numbers in layers))

    def conv(
        c: int, o: int, kernel: int, padding: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> Any:
        return kinds.Conv2d(c, o, kernel, stride, padding, groups=groups, bias=bias, **drawn)

    make: dict[str, Callable[..., Any]] = {
        "conv": conv,
        "batch_norm": kinds.BatchNorm2d,
        "relu": kinds.ReLU,
        "pool": lambda: kinds.MaxPool2d(2),
        "global_pool": lambda: kinds.AdaptiveAvgPool2d(1),
        "flatten": kinds.Flatten,
        "linear": lambda i, o: kinds.Linear(i, o, **drawn),
        "residual": lambda body, shortcut: residual(made(body), made(shortcut) if shortcut else None),
    }
    return made(layers)


def jax_step(model: str) -> Callable[[Array, Array], float]:
    """Return a jitted training step; normalising and the optimiser are compiled with it."""
    _check_for_mnist(model)
    jax: Any = import_module("jax")
    jnp: Any = import_module("jax.numpy")

    def loss_of(params: Any, pixels: Any, labels: Any) -> Any:
        x = ((pixels / 255 - 0.1307) / 0.3081).astype(jnp.float32)[:, None]
        x, buffers = _jax_forward(jax, jnp, model, params, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean(), buffers

    def step(params: Any, velocity: Any, buffers: Any, pixels: Any, labels: Any) -> Any:
        (loss, new), grads = jax.value_and_grad(loss_of, has_aux=True)(params, pixels, labels)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
        params = jax.tree.map(lambda p, v: p - LR * v, params, velocity)
        buffers = jax.tree.map(lambda old, value: 0.9 * old + 0.1 * value, buffers, new)
        return params, velocity, buffers, loss

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    params = _initial(model)
    state = params, jax.tree.map(np.zeros_like, params), _initial_buffers(model)

    def run(pixels: Array, labels: Array) -> float:
        nonlocal state
        *state, loss = compiled(*state, pixels, labels)
        return float(loss)

    return run


def _jax_forward(jax: Any, jnp: Any, model: str, params: Any, x: Any) -> tuple[Any, Any]:
    """Output, and the statistics of each batch norm."""
    weights: Any = iter(params)
    buffers = []
    for kind, *numbers in NETWORKS[model]:
        w, b = next(weights) if kind in ("conv", "linear", "batch_norm") else (x, x)
        if kind == "conv":
            pads = [(numbers[3], numbers[3])] * 2
            x = jax.lax.conv_general_dilated(x, w, (1, 1), pads) + b[:, None, None]
        elif kind == "batch_norm":
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            buffers.append((mean, var))
            x = (x - mean[:, None, None]) * (w / jnp.sqrt(var + 1e-5))[:, None, None] + b[:, None, None]
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            window = (1, 1, 2, 2)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "linear":
            x = x @ w.T + b
    return x, buffers


def _initial(model: str) -> list[tuple[Array, Array]]:
    """Weight and bias of each layer that has them."""
    rng, params = np.random.default_rng(0), []
    for kind, *numbers in NETWORKS[model]:
        if kind == "batch_norm":
            params.append((np.ones(numbers[0], np.float32), np.zeros(numbers[0], np.float32)))
        elif kind in ("conv", "linear"):
            c, o, *kernel = numbers[:3]
            shape = (o, c, *kernel, *kernel)
            bound = np.prod(shape[1:]) ** -0.5
            params.append(
                (rng.uniform(-bound, bound, shape).astype(np.float32), np.zeros(o, np.float32)),
            )
    return params


def _initial_buffers(model: str) -> list[tuple[Array, Array]]:
    channels = [numbers[0] for kind, *numbers in NETWORKS[model] if kind == "batch_norm"]
    return [(np.zeros(c, np.float32), np.ones(c, np.float32)) for c in channels]


def dezero_step(model: str) -> Callable[[Array, Array], float]:
    """Return a training step of DeZero."""
    _check_for_mnist(model)
    vars(np).setdefault("int", int)  # DeZero 0.0.13 uses it on import, but NumPy 2 does not have it
    dezero, layers = import_module("dezero"), import_module("dezero.layers")
    functions: Any = import_module("dezero.functions")
    make: dict[str, Callable[..., Any]] = {
        "conv": lambda c, o, kernel, padding: layers.Conv2d(o, kernel, pad=padding),
        "batch_norm": lambda c: layers.BatchNorm(),
        "relu": lambda: functions.relu,
        "pool": lambda: lambda x: functions.pooling(x, 2, 2),
        "flatten": lambda: functions.flatten,
        "linear": lambda i, o: layers.Linear(o),
    }
    network = dezero.Model()
    steps = [make[kind](*numbers) for kind, *numbers in NETWORKS[model]]
    for i, step in enumerate(steps):
        setattr(network, f"layer{i}", step)  # a model finds its parameters in its attributes
    optimizer = import_module("dezero.optimizers").MomentumSGD(LR, MOMENTUM).setup(network)

    def run(pixels: Array, labels: Array) -> float:
        x = ((pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081))[:, None]
        for step in steps:
            x = step(x)
        loss = functions.softmax_cross_entropy(x, labels)
        network.cleargrads()
        loss.backward()
        optimizer.update()
        return float(loss.data)

    return run
