"""The two networks of tinyconv.models as a list of layers, and in PyTorch, JAX and DeZero.

JAX and DeZero are imported by name, as the type checker does not have them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from tinyconv.arrays import Array

LR, MOMENTUM = 0.01, 0.9

# ("conv", channels in, out, kernel, padding), ("linear", features in, out), ("batch_norm", channels)
NETWORKS: dict[str, list[tuple[Any, ...]]] = {
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
}


def products(model: str) -> list[tuple[int, int, int]]:
    """Return for each weight matrix its rows and columns, and how many columns per image it multiplies."""
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


def pytorch_network(model: str) -> Any:
    """Return the network as a torch.nn.Sequential."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    make: dict[str, Callable[..., nn.Module]] = {
        "conv": lambda c, o, kernel, padding: nn.Conv2d(c, o, kernel, padding=padding),
        "batch_norm": nn.BatchNorm2d,
        "relu": nn.ReLU,
        "pool": lambda: nn.MaxPool2d(2),
        "flatten": nn.Flatten,
        "linear": nn.Linear,
    }
    return nn.Sequential(*(make[kind](*numbers) for kind, *numbers in NETWORKS[model]))


def jax_step(model: str) -> Callable[[Array, Array], float]:
    """Return a jitted training step; normalising and the optimiser are compiled with it."""
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
