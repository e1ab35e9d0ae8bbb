"""Conversion of layers to PyTorch's modules, and of these to layers.

The constructors on both sides have the same arguments, and the states the same names. So a conversion reads
the arguments, creates the other object with them and copies the state.
"""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

import tinyconv.layers
from tinyconv.arguments import instance
from tinyconv.arrays import moved
from tinyconv.convert.place import inside
from tinyconv.layers import Layer, Sequential
from tinyconv.layers.layer import named_in_errors
from tinyconv.optional import optional
from tinyconv.signature import arguments, constructor

if TYPE_CHECKING:
    import torch

# Arguments of layers that PyTorch's modules do not have.
_OURS = ("algorithm",)


def to_torch(layer: Layer) -> "torch.nn.Module":
    """Return the torch.nn module of the same name, arguments, state, dtypes and modes, on the CPU.

    It does not share memory with `layer`, and creating it does not draw from PyTorch's generator. Its
    Dropouts draw from that generator in forward, so their masks differ from those of `layer`.

    Args:
        layer: a layer or a Sequential, nested to any depth. Gradients, and what forward has kept for
            backward, are not converted.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: not a Layer, or one without a counterpart in PyTorch: Residual, a gradient layer, a
            subclass. The message names its place.
    """
    instance("layer", layer, Layer)
    module: torch.nn.Module = _module(_torch(), layer, "")
    return module


def from_torch(module: "torch.nn.Module") -> Layer:
    """Return the layer of the same name, arguments, state, dtypes and modes, on the CPU.

    It does not share memory with `module`, whose forward is not called. What does not exist in a layer is
    left out if it does not change a result (`inplace`, gradients), and refused otherwise.

    Args:
        module: a module of torch.nn or an nn.Sequential, nested to any depth. Each Dropout gets an unseeded
            `generator`, which can be assigned.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: not a module, or one without a counterpart in tinyconv, including subclasses, as these may
            compute something else; hooks; another dtype than float32 or float64. The message names its place.
        ValueError: an option that tinyconv does not have, a parameter in two places, or a module of which
            only some parameters are frozen.
    """
    torch = _torch()
    instance("module", module, torch.nn.Module)
    _check_nothing_shared(module)
    return _layer(torch, module, "")


def _torch() -> Any:
    return optional("torch", "from_torch and to_torch need PyTorch: pip install torch")


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
    kind = getattr(torch.nn, type(layer).__name__, None)
    if kind is None or type(layer) is not _layer_of(type(layer).__name__):
        raise TypeError("PyTorch does not have a module of this kind")
    state = {name: moved(array, np) for name, array in layer.state_dict().items()}
    given = {name: value for name, value in arguments(layer).items() if name not in _OURS}
    with torch.device("meta"):  # it neither draws nor allocates
        module = kind(**given)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, assign=True)
    module.requires_grad_(bool(layer.grads))
    return module


def _layer_of(name: str) -> type[Layer] | None:
    """The layer of that name."""
    kind = getattr(tinyconv.layers, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Layer) else None


# From PyTorch


def _layer(torch: Any, module: Any, place: str) -> Layer:
    layer: Layer
    if type(module) is torch.nn.Sequential:
        children = module._modules.items()  # named_children skips a module that appears again
        layer = Sequential({name: _layer(torch, child, inside(place, name)) for name, child in children})
    else:
        with named_in_errors(place, module):
            layer = _leaf_layer(torch, module)
    with named_in_errors(place, module):
        _check_no_hooks(module)
    layer.training = module.training
    return layer


def _leaf_layer(torch: Any, module: Any) -> Layer:
    kind = _layer_of(type(module).__name__)
    if kind is None or getattr(torch.nn, kind.__name__, None) is not type(module):
        raise TypeError("tinyconv does not have a layer of this kind")
    if getattr(module, "recompute_scale_factor", None):
        raise ValueError("tinyconv does not have `recompute_scale_factor` (=True)")
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    given = {name: getattr(module, name) for name in constructor(kind) if name not in (*_OURS, "bias")}
    if "bias" in constructor(kind):
        given["bias"] = "bias" in state or "weight" not in state
    layer = kind(**given).to(_dtype(state.values()))
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
    """Refuse hooks, which may compute anything: weight_norm and pruning use them."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    if any(getattr(module, kind, None) for kind in kinds):
        raise TypeError("a module with hooks cannot be converted")


def _check_nothing_shared(module: Any) -> None:
    parameters = module.named_parameters(remove_duplicate=False)
    places: dict[int, str] = {}
    for name, tensor in chain(parameters, module.named_buffers(remove_duplicate=False)):
        if id(tensor) in places:
            raise ValueError(f"`module` has one tensor in two places, {places[id(tensor)]!r} and {name!r}")
        places[id(tensor)] = name
