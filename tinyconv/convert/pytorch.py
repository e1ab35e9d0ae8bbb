"""PyTorch's modules from layers, and layers from PyTorch's modules.

The constructors on both sides have the same arguments, and the states the same names. So a conversion reads
the arguments, makes the other's object with them and copies the state.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arguments import instance
from tinyconv.arrays import moved
from tinyconv.convert.place import inside, named_in_errors
from tinyconv.layers import (
    ELU,
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CircularPad2d,
    ConstantPad2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    Flatten,
    Fold,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2d,
    MaxUnpool2d,
    ReflectionPad2d,
    ReLU,
    ReplicationPad2d,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Unflatten,
    Unfold,
    Upsample,
    ZeroPad2d,
)
from tinyconv.layers.activation import Activation
from tinyconv.layers.norm import BatchNorm

if TYPE_CHECKING:
    import torch

_CHANNELS = ("in_channels", "out_channels")
_POOL = ("kernel_size", "stride", "padding")
_CONV = (*_CHANNELS, *_POOL, "dilation", "groups", "padding_mode")
_BATCH_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_UNFOLD = ("kernel_size", "dilation", "padding", "stride")

# The arguments of each constructor but for `bias`, which the state tells. PyTorch's module of the same name
# keeps them as attributes.
_ARGUMENTS: dict[type[Layer], tuple[str, ...]] = {
    Conv1d: _CONV,
    Conv2d: _CONV,
    ConvTranspose2d: (*_CHANNELS, *_POOL, "output_padding", "groups", "dilation"),
    Linear: ("in_features", "out_features"),
    MaxPool2d: (*_POOL, "dilation", "ceil_mode", "return_indices"),
    MaxUnpool2d: _POOL,
    AvgPool2d: (*_POOL, "ceil_mode", "count_include_pad", "divisor_override"),
    AdaptiveAvgPool2d: ("output_size",),
    BatchNorm1d: _BATCH_NORM,
    BatchNorm2d: _BATCH_NORM,
    LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    ReLU: (),
    LeakyReLU: ("negative_slope",),
    ELU: ("alpha",),
    GELU: ("approximate",),
    Sigmoid: (),
    Tanh: (),
    SiLU: (),
    Softplus: ("beta", "threshold"),
    Softmax: ("dim",),
    LogSoftmax: ("dim",),
    ZeroPad2d: ("padding",),
    ConstantPad2d: ("padding", "value"),
    ReflectionPad2d: ("padding",),
    ReplicationPad2d: ("padding",),
    CircularPad2d: ("padding",),
    Dropout: ("p",),
    Dropout2d: ("p",),
    Flatten: ("start_dim", "end_dim"),
    Unflatten: ("dim", "unflattened_size"),
    Unfold: _UNFOLD,
    Fold: ("output_size", *_UNFOLD),
    Upsample: ("size", "scale_factor", "mode"),
}

# Where our layers keep them, in the same order; the others as attributes of the same names.
_VALUES: dict[type[Layer], Callable[[Any], Iterable[Any]]] = {
    Linear: lambda layer: reversed(layer.params["weight"].shape),
    MaxPool2d: lambda layer: (*layer._window, layer.return_indices),
    MaxUnpool2d: lambda layer: layer._window,
    AvgPool2d: lambda layer: (*layer._window, *layer._options),
    BatchNorm: lambda layer: (
        layer.num_features,
        layer.eps,
        layer.momentum,
        "weight" in layer.params,
        "running_mean" in layer.buffers,
    ),
    LayerNorm: lambda layer: (layer.normalized_shape, layer.eps, "weight" in layer.params),
    GroupNorm: lambda layer: (layer.num_groups, layer.num_channels, layer.eps, "weight" in layer.params),
    Activation: lambda layer: layer._options.values(),
    Unfold: lambda layer: layer._geometry,
    Fold: lambda layer: (layer.output_size, *layer._geometry),
    Upsample: lambda layer: layer._options,
}


def to_torch(layer: Layer) -> "torch.nn.Module":
    """The torch.nn module of the same name, arguments, parameters, buffers, dtypes and modes, on the CPU.

    It shares no memory with `layer`, and to make it nothing is drawn from PyTorch's generator. Its Dropouts
    draw from there in forward, so their masks are others than ours.

    Args:
        layer: a layer, or a Sequential of such, nested as deep as you like. Gradients, and what forward has
            kept for backward, stay here.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: no Layer, or one that PyTorch has no module for: Residual, a gradient layer, a subclass.
            The message names its place.
    """
    instance("layer", layer, Layer)
    module: torch.nn.Module = _module(_torch(), layer, "")
    return module


def from_torch(module: "torch.nn.Module") -> Layer:
    """The layer of the same name, arguments, parameters, buffers, dtypes and modes, on the CPU.

    It shares no memory with `module`, whose forward is not called. What has no counterpart in a layer is
    left out where it does not change a result (`inplace`, gradients), and else refused.

    Args:
        module: a module of torch.nn, or an nn.Sequential of such, nested as deep as you like. Dropouts
            get an unseeded `generator` each, which you may assign.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: no module, or one that tinyconv has no layer for, a subclass included, as it may compute
            something else; hooks; another dtype than float32 or float64. The message names its place.
        ValueError: an option that tinyconv has not, a parameter in two places, or a module of which only
            some parameters are frozen.
    """
    torch = _torch()
    instance("module", module, torch.nn.Module)
    _check_nothing_shared(module)
    return _layer(torch, module, "")


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("from_torch and to_torch need PyTorch: pip install torch") from error
    return torch


# To PyTorch


def _module(torch: Any, layer: Layer, place: str) -> Any:
    if type(layer) is Sequential:
        named = ((name, _module(torch, child, inside(place, name))) for name, child in layer.children.items())
        module = torch.nn.Sequential(OrderedDict(named))
    else:
        with named_in_errors(place, layer):
            module = _leaf_module(torch, layer)
    module.training = layer.training
    return module


def _leaf_module(torch: Any, layer: Layer) -> Any:
    if type(layer) not in _ARGUMENTS:
        raise TypeError("PyTorch has no module of this kind")
    state = {name: moved(array, np) for name, array in layer.state_dict().items()}
    with torch.device("meta"):  # which draws and allocates nothing
        module = getattr(torch.nn, type(layer).__name__)(**_with_bias(_arguments(layer), state))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, assign=True)
    module.requires_grad_(bool(layer.grads))
    return module


def _arguments(layer: Layer) -> dict[str, Any]:
    """The arguments that the layer was made with."""
    names = _ARGUMENTS[type(layer)]
    for kind, values in _VALUES.items():
        if isinstance(layer, kind):
            return dict(zip(names, values(layer), strict=True))
    return {name: getattr(layer, name) for name in names}


def _with_bias(arguments: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The arguments with `bias`, where the state shows that it is not the default."""
    return {**arguments, "bias": False} if "weight" in state and "bias" not in state else arguments


# From PyTorch


def _layer(torch: Any, module: Any, place: str) -> Layer:
    layer: Layer
    if type(module) is torch.nn.Sequential:
        children = module._modules.items()  # named_children leaves out a module's second place
        layer = Sequential({name: _layer(torch, child, inside(place, name)) for name, child in children})
    else:
        with named_in_errors(place, module):
            layer = _leaf_layer(torch, module)
    with named_in_errors(place, module):
        _check_no_hooks(module)
    layer.training = module.training
    return layer


def _leaf_layer(torch: Any, module: Any) -> Layer:
    kinds = (k for k in _ARGUMENTS if getattr(torch.nn, k.__name__, None) is type(module))
    kind = next(kinds, None)
    if kind is None:
        raise TypeError("tinyconv has no layer of this kind")
    for name in ("align_corners", "recompute_scale_factor"):
        if getattr(module, name, None):
            raise ValueError(f"tinyconv has no `{name}` (={getattr(module, name)})")
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    arguments = {name: getattr(module, name) for name in _ARGUMENTS[kind]}
    layer = kind(**_with_bias(arguments, state)).to(_dtype(state.values()))
    layer.load_state_dict({name: tensor.numpy() for name, tensor in state.items()})
    wanted = {parameter.requires_grad for parameter in module.parameters()}
    if len(wanted) > 1:
        raise ValueError("tinyconv freezes all parameters of a layer or none, not some")
    return layer.requires_grad_(wanted != {False})


def _dtype(tensors: Iterable[Any]) -> str:
    """The one floating dtype of the tensors, by its name in NumPy."""
    names = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()})
    if len(names) > 1 or not {*names} <= {"float32", "float64"}:
        raise TypeError(f"parameters and buffers must be float32 or float64, all the same, not {names}")
    return names[0] if names else "float32"


def _check_no_hooks(module: Any) -> None:
    """Refuse hooks, which may compute anything: weight_norm and pruning are made of them."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    if any(getattr(module, kind, None) for kind in kinds):
        raise TypeError("a module with hooks cannot be converted")


def _check_nothing_shared(module: Any) -> None:
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    places: dict[int, str] = {}
    for name, tensor in named:
        if id(tensor) in places:
            raise ValueError(f"`module` has one tensor in two places, {places[id(tensor)]!r} and {name!r}")
        places[id(tensor)] = name
