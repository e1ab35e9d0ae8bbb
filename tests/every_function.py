"""A call of every function of `tinyconv.functional`, with arrays of one dtype."""

import inspect
from typing import Any, NamedTuple

import numpy as np

import tinyconv.functional as F
from tinyconv.arrays import Array


class Call(NamedTuple):
    """The positional arguments of a call, and its options."""

    args: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012

    def where_arrays_are(self) -> list[int]:
        """The places of the arguments that are arrays."""
        return [place for place, arg in enumerate(self.args) if isinstance(arg, (np.ndarray, np.generic))]

    def given(self, place: int, value: Any) -> "Call":
        """The same call with another value in one place."""
        return Call((*self.args[:place], value, *self.args[place + 1 :]), self.options)


def public_functions() -> set[str]:
    """The names of all functions of `tinyconv.functional`."""
    return {name for name, value in vars(F).items() if inspect.isroutine(value)}


def run(name: str, call: Call) -> Any:
    """What the function returns; batch norm, which writes to the running statistics, is given copies."""
    args = list(call.args)
    for place, arg in enumerate(args):
        if _is_statistic(name, place) and type(arg) is np.ndarray:
            args[place] = np.array(arg)
    return getattr(F, name)(*args, **call.options)


def _is_statistic(name: str, place: int) -> bool:
    return name in ("batch_norm", "batch_norm_saved", "instance_norm") and place in (1, 2)


def parameter(name: str, place: int) -> str:
    """The name of the parameter in that place."""
    return list(inspect.signature(getattr(F, name)).parameters)[place]


def arrays_of(value: Any) -> list[Array]:
    """The arrays in what a function returned, in order."""
    if isinstance(value, tuple):
        return [array for part in value for array in arrays_of(part)]
    return [np.asarray(value)] if isinstance(value, (np.ndarray, np.generic)) else []


def every_call(dtype: Any, scale: float = 1.0, shift: float = 0.0) -> dict[str, Call]:
    """A call of every function, its floating arrays of `dtype` and multiplied by `scale`, then shifted."""
    drawn = np.random.default_rng(5)

    def normal(*shape: int) -> Array:
        return np.asarray(drawn.standard_normal(shape) * scale + shift, dtype)

    def share(*shape: int) -> Array:
        return drawn.uniform(0.1, 0.9, shape).astype(dtype)

    calls = _forward_calls(normal, share, drawn)
    for name, (args, options) in list(calls.items()):
        output = run(name, calls[name])
        if name in ("nhwc_to_nchw", "nchw_to_nhwc", "hwio_to_oihw", "oihw_to_hwio"):
            continue
        grad, grad_dot = normal(*output.shape), normal(*output.shape)
        calls[f"{name}_backward"] = Call((grad, *args), options)
        dots = (grad_dot, normal(*args[0].shape), grad)
        calls[f"{name}_backward_jvp"] = Call((*dots, *args), options)
    calls |= _linear_parts(calls) | _saved_calls(calls, normal)
    return {name: call for name, call in calls.items() if hasattr(F, name)}


def _forward_calls(normal: Any, share: Any, drawn: Any) -> dict[str, Call]:
    image, values = normal(4, 4, 6, 5), normal(3, 4, 2)
    pooled, indices = F.max_pool2d(normal(2, 2, 4, 6), 2, return_indices=True)
    classes, weights = drawn.integers(0, 5, (3, 2)), share(5)
    calls = {name: Call((values,)) for name in ("relu", "sigmoid", "tanh", "silu", "flatten")}
    calls |= {name: Call((values,)) for name in ("relu6", "hardsigmoid", "hardswish", "selu", "mish")}
    calls |= {
        "hardtanh": Call((values, -0.5, 1.5)),
        "prelu": Call((values, normal(4))),
        "leaky_relu": Call((values, -0.3)),
        "elu": Call((values, 1.5)),
        "softplus": Call((values, 2.0, 1.5)),
        "gelu": Call((values,)),
        "softmax": Call((values, 1)),
        "log_softmax": Call((values, 1)),
        "linear": Call((normal(3, 5), normal(4, 5), normal(4))),
        "conv1d": Call((normal(3, 4, 7), normal(6, 2, 3), normal(6), 2, 1, 1, 2)),
        "conv2d": Call((image, normal(6, 2, 3, 3), normal(6), 2, 1, 1, 2)),
        "conv_transpose2d": Call((image, normal(4, 3, 3, 3), normal(6), 2, 1, 1, 2)),
        "unfold": Call((image, 2, 1, 1, 2)),
        "fold": Call((normal(3, 8, 9), (5, 4), 2, 1, 1, 2)),
        "max_pool2d": Call((image, 3, 2, 1)),
        "max_unpool2d": Call((pooled, indices, 2)),
        "avg_pool2d": Call((image, 3, 2, 1)),
        "adaptive_max_pool2d": Call((image, (3, 2))),
        "max_pool1d": Call((normal(3, 4, 9), 3, 2, 1)),
        "avg_pool1d": Call((normal(3, 4, 9), 3, 2, 1)),
        "conv_transpose1d": Call((normal(3, 4, 7), normal(4, 3, 3), normal(6), 2, 1, 1, 2)),
        "adaptive_avg_pool2d": Call((image, (3, 2))),
        "pad": Call((image, (1, 2, 0, 1), "reflect")),
        "interpolate": Call((image,), {"scale_factor": 1.7, "mode": "bilinear"}),
        "unflatten": Call((values, 1, (2, 2))),
        "batch_norm": Call((image, normal(4), share(4), normal(4), normal(4), True)),
        "group_norm": Call((image, 2, normal(4), normal(4))),
        "layer_norm": Call((image, (6, 5), normal(6, 5), normal(6, 5))),
        "instance_norm": Call((image, normal(4), share(4), normal(4), normal(4))),
        "normalize": Call((image, 3.0)),
        "pixel_shuffle": Call((image, 2)),
        "pixel_unshuffle": Call((normal(3, 2, 4, 6), 2)),
        "dropout": Call((values,), {"generator": 0}),
        "dropout2d": Call((image,), {"generator": 0}),
        "cross_entropy": Call((normal(3, 5, 2), classes, weights), {"label_smoothing": 0.1}),
        "nll_loss": Call((normal(3, 5, 2), classes, weights)),
        "binary_cross_entropy": Call((share(3, 4), share(3, 4), share(4))),
        "binary_cross_entropy_with_logits": Call((values, share(3, 4, 2), share(4, 2)), {"reduction": "sum"}),
    }
    pair = normal(3, 4), normal(3, 4)
    calls["margin_ranking_loss"] = Call((*pair, normal(1, 4)))
    calls["cosine_embedding_loss"] = Call((*pair, np.sign(normal(3))), {"margin": -0.5})
    calls["triplet_margin_loss"] = Call((*pair, normal(1, 4)), {"swap": True})
    calls["kl_div"] = Call((values, share(3, 4, 2)), {"reduction": "batchmean"})
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "hinge_embedding_loss"):
        calls[name] = Call((normal(3, 4), normal(3, 4)))
    for name in ("nhwc_to_nchw", "nchw_to_nhwc", "hwio_to_oihw", "oihw_to_hwio"):
        calls[name] = Call((image,))
    return calls


def _linear_parts(calls: dict[str, Call]) -> dict[str, Call]:
    """The gradients of linear and of the convolutions, one by one."""
    parts = {}
    for name in ("conv1d", "conv2d"):
        grad, input, weight, _, *options = calls[f"{name}_backward"].args
        parts[f"{name}_input"] = Call((input.shape, weight, grad, *options))
        parts[f"{name}_weight"] = Call((input, weight.shape, grad, *options))
        parts[f"{name}_bias"] = Call((grad,))
    grad, input, weight, _ = calls["linear_backward"].args
    parts["linear_input"] = Call((input.shape, weight, grad))
    parts["linear_weight"] = Call((input, weight.shape, grad))
    parts["linear_bias"] = Call((grad,))
    return parts


def _saved_calls(calls: dict[str, Call], normal: Any) -> dict[str, Call]:
    """Those that take what a forward saved, and the tangents that are written out."""
    made: dict[str, Call] = {}
    image, mean, var, weight, bias, _ = calls["batch_norm"].args
    grad, dot, grad_dot = normal(*image.shape), normal(*image.shape), normal(*image.shape)
    weight_dot, bias_dot = normal(4), normal(4)
    made["batch_norm_saved"] = calls["batch_norm"]
    _, saved = F.batch_norm_saved(image, np.copy(mean), np.copy(var), weight, bias, True)
    made["batch_norm_saved_backward"] = Call((grad, saved, weight, bias))
    made["batch_norm_saved_jvp"] = Call((dot, weight_dot, bias_dot, saved, weight))
    _, moved = F.batch_norm_saved_jvp(dot, weight_dot, bias_dot, saved, weight)
    made["batch_norm_saved_backward_jvp"] = Call((grad_dot, moved, weight_dot, grad, saved, weight))

    image, groups, weight, _ = calls["group_norm"].args
    made["group_norm_jvp"] = Call((dot, weight_dot, bias_dot, image, groups, weight))
    made["group_norm_backward_jvp"] = Call((grad_dot, dot, weight_dot, grad, image, groups, weight))
    image, shape, weight, _ = calls["layer_norm"].args
    weight_dot, bias_dot = normal(*shape), normal(*shape)
    made["layer_norm_jvp"] = Call((dot, weight_dot, bias_dot, image, shape, weight))
    made["layer_norm_backward_jvp"] = Call((grad_dot, dot, weight_dot, grad, image, shape, weight))

    logits, classes, weights = calls["cross_entropy"].args
    made["cross_entropy_saved"] = calls["cross_entropy"]
    loss, cross = F.cross_entropy_saved(logits, classes, weights)
    logits_dot = normal(*logits.shape)
    made["cross_entropy_saved_backward"] = Call((normal(*loss.shape), cross))
    made["cross_entropy_saved_jvp"] = Call((logits_dot, cross))
    made["cross_entropy_saved_backward_jvp"] = Call(
        (normal(*loss.shape), logits_dot, normal(*loss.shape), cross)
    )

    values, weight = calls["prelu"].args
    dots = normal(*values.shape), normal(*weight.shape)
    made["prelu_jvp"] = Call((*dots, values, weight))
    grads = normal(*values.shape), normal(*values.shape)
    made["prelu_backward_jvp"] = Call((grads[0], *dots, grads[1], values, weight))
    values, dim = calls["log_softmax"].args
    made["log_softmax_jvp"] = Call((normal(*values.shape), values, dim))
    image, p = calls["normalize"].args
    made["normalize_jvp"] = Call((normal(*image.shape), image, p))
    image, *options = calls["max_pool2d"].args
    pooled, winners = F.max_pool2d_saved(image, *options)
    made["max_pool2d_saved"] = calls["max_pool2d"]
    made["max_pool2d_saved_backward"] = Call((normal(*pooled.shape), winners, image.shape, *options))
    made["max_pool2d_saved_jvp"] = Call((dot, winners, *options))
    for name in ("dropout", "dropout2d"):
        made[f"{name}_saved"] = calls[name]
        _, mask = run(f"{name}_saved", calls[name])
        (values,) = calls[name].args
        made[f"{name}_saved_backward"] = Call((normal(*values.shape), mask))
    return made
