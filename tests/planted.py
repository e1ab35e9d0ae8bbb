"""Mistakes in gradients, each made by other means than diagnose has, and the name that it should get."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
import scipy.special

import tinyconv.functional as F
from tinyconv.arrays import Array


class Planted(NamedTuple):
    """A mistake: in which gradient of which operator, the name or names that are expected, how it is made."""

    operator: str
    wrt: str
    arguments: dict[str, Any]
    expected: str | tuple[str, ...]
    got: Callable[[], Any]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def ours(arguments: dict[str, Any]) -> dict[str, Any]:
    return {("input" if name == "x" else name): value for name, value in arguments.items()}


def case(operator: str, **arguments: Any) -> dict[str, Any]:
    """The arguments, with a random grad_output."""
    output = getattr(F, operator)(**ours(arguments))
    return {**arguments, "grad_output": normal(*output.shape, seed=7)}


def right(operator: str, arguments: dict[str, Any], place: int = 0, **changed: Any) -> Array:
    """A gradient, or that for other arguments."""
    found = getattr(F, f"{operator}_backward")(**ours(arguments | changed))
    return np.asarray(found[place] if isinstance(found, tuple) else found)


# Convolutions


X, W, B = normal(4, 6, 9, 8), normal(6, 6, 3, 3, seed=1), normal(6)
BARE = case("conv2d", x=X, weight=W)
SAME = case("conv2d", x=X, weight=W, bias=B, padding=1)
STRIDED = case("conv2d", x=X[:, :, :, :7], weight=W, stride=2)
EVEN = case("conv2d", x=X, weight=W, stride=2)
DILATED = case("conv2d", x=X, weight=W, dilation=2)
GROUPED = case("conv2d", x=X, weight=normal(4, 3, 3, 3), groups=2)
LINE = case("conv1d", x=normal(4, 3, 11), weight=normal(5, 3, 3), bias=normal(5), padding=1)
UP = case("conv_transpose2d", x=normal(3, 4, 5, 4), weight=normal(4, 2, 3, 3), stride=2, padding=1)
G, GS = BARE["grad_output"], SAME["grad_output"]


def windows(
    g: Array,
    w: Array,
    size: tuple[int, int],
    stride: int = 1,
    pad: int = 0,
    apart: int = 1,
    write: bool = False,
) -> Array:
    """conv2d's gradient with respect to the input, window by window, added or (`write`) overwritten."""
    wide = np.zeros((len(g), w.shape[1], size[0] + 2 * pad, size[1] + 2 * pad))
    reach = [apart * (n - 1) + 1 for n in w.shape[2:]]
    for p, q in np.ndindex(g.shape[2:]):
        part = np.einsum("no,ocij->ncij", g[:, :, p, q], w)
        at = wide[:, :, p * stride :, q * stride :][:, :, : reach[0] : apart, : reach[1] : apart]
        at[...] = part if write else at + part
    return wide[:, :, pad : pad + size[0], pad : pad + size[1]]


def full(g: Array, w: Array, turn: bool) -> Array:
    """Every map with every kernel, "full", by scipy, summed over the output channels."""
    run = scipy.signal.convolve2d if turn else scipy.signal.correlate2d
    maps = [
        [sum(run(g[n, o], w[o, c]) for o in range(len(w))) for c in range(w.shape[1])] for n in range(len(g))
    ]
    return np.array(maps)


def valid(x: Array, g: Array, turn: bool = False) -> Array:
    """The kernel's gradient by scipy, for stride 1 without padding."""
    run = scipy.signal.convolve2d if turn else scipy.signal.correlate2d
    batch = range(len(x))
    return np.array(
        [
            [sum(run(x[n, c], g[n, o], mode="valid") for n in batch) for c in range(x.shape[1])]
            for o in range(g.shape[1])
        ]
    )


def forward(x: Array, w: Array, turn: bool) -> Array:
    run = scipy.signal.convolve2d if turn else scipy.signal.correlate2d
    channels = range(x.shape[1])
    return np.array([[sum(run(im[c], k[c], mode="valid") for c in channels) for k in w] for im in x])


def rotated(w: Array) -> Array:
    return w[..., ::-1, ::-1]


def inside(array: Array) -> Array:
    return array[..., 1:-1, 1:-1]


def nhwc_bytes(array: Array) -> Array:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).reshape(array.shape)


def dealt_groups() -> Array:
    """The grouped convolution's gradient, if map o belonged to group o % 2."""
    w, g = GROUPED["weight"], GROUPED["grad_output"]
    halves = [windows(g[:, k::2], w[k::2], X.shape[2:]) for k in range(2)]
    return np.concatenate(halves, axis=1)


SWAPPED = W.swapaxes(0, 1)
CONVOLUTIONS = [
    Planted("conv2d", "x", BARE, "kernel not rotated", lambda: full(G, W, False)),
    Planted("conv2d", "x", SAME, "kernel not rotated", lambda: inside(full(GS, W, False))),
    Planted("conv2d", "x", SAME, "channels not swapped", lambda: inside(full(GS, SWAPPED, True))),
    Planted("conv2d", "x", SAME, "padding not cut off", lambda: full(GS, W, True)),
    Planted("conv2d", "x", SAME, "padding ignored", lambda: full(GS, W, True)[:, :, :-2, :-2]),
    Planted("conv2d", "x", SAME, "= for +=", lambda: windows(GS, W, X.shape[2:], pad=1, write=True)),
    Planted("conv2d", "x", EVEN, "= for +=", lambda: windows(EVEN["grad_output"], W, (9, 8), 2, write=True)),
    Planted("conv2d", "x", SAME, "= for +=", lambda: inside(full(GS[:, -1:], W[-1:], True))),
    Planted("conv2d", "x", STRIDED, "stride ignored", lambda: windows(STRIDED["grad_output"], W, (9, 7))),
    Planted("conv2d", "x", EVEN, "zeros of the stride missing", lambda: full(EVEN["grad_output"], W, True)),
    Planted(
        "conv2d",
        "x",
        EVEN,
        ("kernel not rotated", "zeros of the stride missing"),
        lambda: full(EVEN["grad_output"], W, False),
    ),
    Planted("conv2d", "x", EVEN, "last rows missing", lambda: windows(EVEN["grad_output"], W, (9, 7), 2)),
    Planted("conv2d", "x", DILATED, "dilation ignored", lambda: windows(DILATED["grad_output"], W, (9, 8))),
    Planted("conv2d", "x", BARE, "padding of forward", lambda: inside(inside(full(G, W, True)))),
    Planted("conv2d", "x", GROUPED, "groups mixed", dealt_groups),
    Planted("conv2d", "x", SAME, "scaled", lambda: inside(full(GS, W, True)) / 4),
    Planted("conv2d", "x", SAME, "memory order", lambda: nhwc_bytes(inside(full(GS, W, True)))),
    Planted("conv2d", "x", SAME, "precision", lambda: inside(full(GS, W, True)).astype("f4").astype("f8")),
    Planted(
        "conv2d",
        "x",
        BARE,
        "output in place of grad_output",
        lambda: windows(forward(X, W, False), W, X.shape[2:]),
    ),
    Planted("conv2d", "weight", BARE, "convolved", lambda: valid(X, G, True)),
    Planted("conv2d", "weight", BARE, "rotated", lambda: rotated(valid(X, G))),
    Planted("conv2d", "weight", BARE, "transposed", lambda: valid(X, G).swapaxes(0, 1)),
    Planted("conv2d", "weight", BARE, "= for +=", lambda: valid(X[-1:], G[-1:])),
    Planted("conv2d", "weight", BARE, "first sample only", lambda: valid(X[:1], G[:1])),
    Planted("conv2d", "weight", BARE, "scaled", lambda: valid(X, G) / 4),
    Planted("conv2d", "weight", BARE, ("rotated", "scaled"), lambda: -rotated(valid(X, G))),
    Planted(
        "conv2d",
        "weight",
        BARE,
        "reshaped in place of transposed",
        lambda: valid(nhwc_bytes(X), nhwc_bytes(G)),
    ),
    Planted(
        "conv2d",
        "weight",
        BARE,
        "not summed",
        lambda: np.stack([valid(X[n : n + 1], G[n : n + 1]) for n in range(4)]),
    ),
    Planted(
        "conv2d", "weight", SAME, "padding ignored", lambda: valid(np.pad(X, [(0, 0)] * 2 + [(0, 2)] * 2), GS)
    ),
    Planted("conv2d", "weight", BARE, "zeros", lambda: np.zeros_like(W)),
    Planted("conv2d", "bias", SAME, "not summed", lambda: GS.sum(axis=(2, 3))),
    Planted("conv2d", "bias", SAME, "scaled", lambda: GS.mean(axis=(0, 2, 3))),
    Planted("conv2d", "bias", SAME, "= for +=", lambda: GS[-1].sum(axis=(1, 2))),
    Planted("conv2d", "output", SAME, "bias missing", lambda: F.conv2d(X, W, None, padding=1)),
    Planted("conv2d", "output", BARE, "kernel rotated", lambda: forward(X, W, True)),
    Planted("conv2d", "output", SAME, "padding ignored", lambda: forward(X, W, False) + B[:, None, None]),
    Planted(
        "conv1d",
        "x",
        LINE,
        "kernel not rotated",
        lambda: right("conv1d", LINE, weight=LINE["weight"][..., ::-1]),
    ),
    Planted("conv1d", "weight", LINE, "flipped", lambda: right("conv1d", LINE, 1)[..., ::-1]),
    Planted("conv1d", "weight", LINE, "transposed", lambda: right("conv1d", LINE, 1).T),
    Planted("conv1d", "bias", LINE, "not summed", lambda: LINE["grad_output"].sum(axis=2)),
    Planted("conv1d", "x", LINE, "shifted", lambda: np.roll(right("conv1d", LINE), 3, axis=2)),
    Planted(
        "conv_transpose2d",
        "x",
        UP,
        "kernel rotated",
        lambda: right("conv_transpose2d", UP, weight=rotated(UP["weight"])),
    ),
    Planted("conv_transpose2d", "weight", UP, "scaled", lambda: right("conv_transpose2d", UP, 1) * 3),
    Planted(
        "conv_transpose2d",
        "output",
        UP,
        "kernel rotated",
        lambda: F.conv_transpose2d(UP["x"], rotated(UP["weight"]), stride=2, padding=1),
    ),
]

# Linear and elementwise functions

SQUARE = case("linear", x=normal(6, 5), weight=normal(5, 5), bias=normal(5))
FLAT = case("linear", x=normal(6, 5), weight=normal(3, 5))
V = normal(5, 7)
ONE = {name: case(name, x=V) for name in ("relu", "sigmoid", "tanh", "gelu", "silu")}
LEAKY, BENT = case("leaky_relu", x=V, negative_slope=0.3), case("elu", x=V, alpha=1.5)
SOFT = case("softplus", x=V, beta=2.0)


def slope(name: str, derivative: Callable[[Array], Array]) -> Array:
    return np.asarray(ONE[name]["grad_output"] * derivative(V))


ELEMENTWISE = [
    Planted(
        "linear", "x", SQUARE, "weight not transposed", lambda: SQUARE["grad_output"] @ SQUARE["weight"].T
    ),
    Planted("linear", "weight", FLAT, "transposed", lambda: FLAT["x"].T @ FLAT["grad_output"]),
    Planted("linear", "weight", FLAT, "= for +=", lambda: np.outer(FLAT["grad_output"][-1], FLAT["x"][-1])),
    Planted("linear", "weight", FLAT, "scaled", lambda: FLAT["grad_output"].T @ FLAT["x"] / 6),
    Planted("linear", "bias", SQUARE, "not summed", lambda: SQUARE["grad_output"]),
    Planted("linear", "output", SQUARE, "bias missing", lambda: SQUARE["x"] @ SQUARE["weight"].T),
    Planted("relu", "x", ONE["relu"], "mask missing", lambda: ONE["relu"]["grad_output"]),
    Planted("relu", "x", ONE["relu"], "grad_output missing", lambda: (V > 0) * 1.0),
    Planted("leaky_relu", "x", LEAKY, "negative_slope ignored", lambda: LEAKY["grad_output"] * (V > 0)),
    Planted(
        "elu",
        "x",
        BENT,
        "input in place of output",
        lambda: BENT["grad_output"] * np.where(V > 0, 1, V + 1.5),
    ),
    Planted(
        "sigmoid",
        "x",
        ONE["sigmoid"],
        "input in place of output",
        lambda: slope("sigmoid", lambda v: v * (1 - v)),
    ),
    Planted(
        "sigmoid",
        "x",
        ONE["sigmoid"],
        "output in place of input",
        lambda: slope(
            "sigmoid", lambda v: scipy.special.expit(y := scipy.special.expit(v)) * scipy.special.expit(-y)
        ),
    ),
    Planted("tanh", "x", ONE["tanh"], "input in place of output", lambda: slope("tanh", lambda v: 1 - v**2)),
    Planted("tanh", "x", ONE["tanh"], "derivative missing", lambda: ONE["tanh"]["grad_output"]),
    Planted(
        "gelu", "x", ONE["gelu"], "approximation", lambda: right("gelu", ONE["gelu"], approximate="tanh")
    ),
    Planted("silu", "x", ONE["silu"], "term missing", lambda: slope("silu", scipy.special.expit)),
    Planted("softplus", "x", SOFT, "beta ignored", lambda: SOFT["grad_output"] * scipy.special.expit(V)),
]

# Softmax, losses

ROWS = case("softmax", x=V, dim=1)
LOGS = case("log_softmax", x=V, dim=1)
P, GR = scipy.special.softmax(V, axis=1), ROWS["grad_output"]
LABELS = np.array([0, 3, 2, 6, 3])
CROSS = {"x": V, "target": LABELS}
HOT = np.eye(7)[LABELS]
SQUARED = {"x": V, "target": normal(5, 7, seed=3)}
APART = V - SQUARED["target"]
LOSSES = [
    Planted("softmax", "x", ROWS, "coupling term missing", lambda: GR * P * (1 - P)),
    Planted("softmax", "x", ROWS, "coupling term missing", lambda: GR * P),
    Planted("softmax", "x", ROWS, "output in place of the gradient", lambda: P),
    Planted("softmax", "output", ROWS, "wrong axis", lambda: scipy.special.softmax(V, axis=0)),
    Planted("log_softmax", "x", LOGS, "sum of grad_output missing", lambda: LOGS["grad_output"] - P),
    Planted(
        "log_softmax",
        "x",
        LOGS,
        "softmax in place of its logarithm",
        lambda: P * (LOGS["grad_output"] - (P * LOGS["grad_output"]).sum(1, keepdims=True)),
    ),
    Planted("cross_entropy", "x", CROSS, "scaled", lambda: P - HOT),
    Planted("cross_entropy", "x", CROSS, "scaled", lambda: (HOT - P) / 5),
    Planted("cross_entropy", "x", CROSS, "onehot missing", lambda: P / 5),
    Planted("cross_entropy", "x", CROSS, ("onehot missing", "scaled"), lambda: P),
    Planted("cross_entropy", "x", CROSS, "wrong axis", lambda: (scipy.special.softmax(V, axis=0) - HOT) / 5),
    Planted(
        "cross_entropy", "x", CROSS, "softmax twice", lambda: (scipy.special.softmax(P, axis=1) - HOT) / 5
    ),
    Planted("cross_entropy", "x", CROSS, "softmax missing", lambda: (V - HOT) / 5),
    Planted("mse_loss", "x", SQUARED, "scaled", lambda: APART / 35),
    Planted("mse_loss", "x", SQUARED, "scaled", lambda: 2 * APART / 5),
    Planted("mse_loss", "x", SQUARED, "sign of the difference", lambda: np.sign(APART) / 35),
]

# Pooling and normalization

TIES = np.random.default_rng(5).integers(0, 3, (2, 3, 8, 8)).astype(float)
OVER = normal(2, 3, 9, 9)
POOL = case("max_pool2d", x=TIES, kernel_size=2)
LAPPED = case("max_pool2d", x=OVER, kernel_size=3, stride=2)
MEAN = case("avg_pool2d", x=OVER, kernel_size=3, stride=2, padding=1)


def pooled(rule: Callable[[Array], Array], arguments: dict[str, Any], write: bool = False) -> Array:
    """A pooling's gradient, each window's share by a rule."""
    x, g, k = arguments["x"], arguments["grad_output"], arguments["kernel_size"]
    stride, pad = arguments.get("stride", k), arguments.get("padding", 0)
    wide = np.pad(x, [(0, 0)] * 2 + [(pad, pad)] * 2)
    grad = np.zeros_like(wide)
    for n, c, p, q in np.ndindex(g.shape):
        place = n, c, slice(p * stride, p * stride + k), slice(q * stride, q * stride + k)
        share = rule(wide[place])
        if write:
            grad[place][share != 0] = (g[n, c, p, q] * share)[share != 0]
        else:
            grad[place] += g[n, c, p, q] * share
    return grad[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]


def all_maxima(window: Array) -> Array:
    return np.asarray((window == window.max()) * 1.0)


def last_maximum(window: Array) -> Array:
    share = np.zeros(window.size)
    share[window.size - 1 - window.ravel()[::-1].argmax()] = 1
    return share.reshape(window.shape)


def average(window: Array) -> Array:
    return np.full(window.shape, 1 / window.size)


C = normal(6, 4, 5, 5) * 3 + 1
NORMED = case(
    "batch_norm",
    x=C,
    running_mean=normal(4),
    running_var=normal(4) ** 2,
    weight=normal(4),
    bias=normal(4),
    training=True,
)
LAYER = case("layer_norm", x=V, normalized_shape=(7,), weight=normal(7), bias=normal(7))
GROUP = case("group_norm", x=C, num_groups=2, weight=normal(4), bias=normal(4))


def normalized(arguments: dict[str, Any], axes: tuple[int, ...], terms: str) -> Array:
    """The norm's gradient with some terms, "mean" and "variance", by the chain rule."""
    x, g, w = arguments["x"], arguments["grad_output"], arguments["weight"]
    g = g * (w if w.shape == x.shape[-1:] and x.ndim == 2 else w[:, None, None])
    centred = x - x.mean(axis=axes, keepdims=True)
    var = (centred**2).mean(axis=axes, keepdims=True) + 1e-5
    grad = g / np.sqrt(var)
    if "mean" in terms:
        grad = grad - (g / np.sqrt(var)).mean(axis=axes, keepdims=True)
    if "variance" in terms:
        grad = grad - centred * (g * centred).mean(axis=axes, keepdims=True) * var**-1.5
    return np.asarray(grad)


CHANNEL = (0, 2, 3)
WINDOWS_AND_NORMS = [
    Planted("max_pool2d", "x", POOL, "all ties", lambda: pooled(all_maxima, POOL)),
    Planted("max_pool2d", "x", POOL, "last maximum", lambda: pooled(last_maximum, POOL)),
    Planted(
        "max_pool2d",
        "x",
        POOL,
        "ties shared",
        lambda: pooled(lambda w: all_maxima(w) / all_maxima(w).sum(), POOL),
    ),
    Planted("max_pool2d", "x", LAPPED, "= for +=", lambda: pooled(all_maxima, LAPPED, write=True)),
    Planted("max_pool2d", "x", LAPPED, "average in place of the maximum", lambda: pooled(average, LAPPED)),
    Planted("avg_pool2d", "x", MEAN, "divisor missing", lambda: pooled(np.ones_like, MEAN)),
    Planted("avg_pool2d", "x", MEAN, "= for +=", lambda: pooled(average, MEAN, write=True)),
    Planted(
        "avg_pool2d", "x", MEAN, "padding counted", lambda: right("avg_pool2d", MEAN, count_include_pad=False)
    ),
    Planted("batch_norm", "x", NORMED, "statistics constant", lambda: normalized(NORMED, CHANNEL, "")),
    Planted("batch_norm", "x", NORMED, "variance constant", lambda: normalized(NORMED, CHANNEL, "mean")),
    Planted("batch_norm", "x", NORMED, "mean constant", lambda: normalized(NORMED, CHANNEL, "variance")),
    Planted("batch_norm", "x", NORMED, "wrong axis", lambda: normalized(NORMED, (0,), "mean variance")),
    Planted("batch_norm", "x", NORMED, "wrong axis", lambda: normalized(NORMED, (2, 3), "mean variance")),
    Planted("batch_norm", "x", NORMED, "weight missing", lambda: right("batch_norm", NORMED, weight=None)),
    Planted(
        "batch_norm", "x", NORMED, "running statistics", lambda: right("batch_norm", NORMED, training=False)
    ),
    Planted(
        "batch_norm",
        "weight",
        NORMED,
        "input not normalized",
        lambda: (NORMED["grad_output"] * C).sum(CHANNEL),
    ),
    Planted("batch_norm", "bias", NORMED, "scaled", lambda: NORMED["grad_output"].mean(CHANNEL)),
    Planted("layer_norm", "x", LAYER, "statistics constant", lambda: normalized(LAYER, (1,), "")),
    Planted("layer_norm", "x", LAYER, "wrong axis", lambda: normalized(LAYER, (0,), "mean variance")),
    Planted(
        "group_norm", "x", GROUP, "groups ignored", lambda: normalized(GROUP, (1, 2, 3), "mean variance")
    ),
    Planted("group_norm", "x", GROUP, "groups ignored", lambda: normalized(GROUP, (2, 3), "mean variance")),
]

PLANTED = [*CONVOLUTIONS, *ELEMENTWISE, *LOSSES, *WINDOWS_AND_NORMS]
