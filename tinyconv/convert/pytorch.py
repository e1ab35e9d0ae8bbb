"""Conversion of layers to PyTorch's modules, and of these to layers.

The constructors on both sides have the same arguments, and the states the same names. So a conversion reads
the arguments, creates the other object with them and copies the state.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

import tinyconv.layers
from tinyconv.arguments import instance
from tinyconv.arrays import moved
from tinyconv.convert.place import inside
from tinyconv.layers import Concat, Gate, Layer, Residual, Sequential, Shared
from tinyconv.layers.layer import named_in_errors
from tinyconv.optional import optional
from tinyconv.signature import arguments, constructor

if TYPE_CHECKING:
    import torch

CONTAINERS = (Sequential, Residual, Concat, Gate)
# Arguments of layers that PyTorch's modules do not have.
_OURS = ("algorithm",)


def to_torch(layer: Layer) -> "torch.nn.Module":
    """Return the torch.nn module of the same name, arguments, state, dtypes and modes, on the CPU.

    It does not share memory with `layer`, and creating it does not draw from PyTorch's generator. Its
    Dropouts draw from that generator in forward, so their masks differ from those of `layer`.

    Args:
        layer: a layer or a container, nested to any depth. Gradients, and what forward has kept for
            backward, are not converted. Residual, Concat and Gate, which torch.nn does not have, become
            modules of `tinyconv.convert.torch_modules`, and a Shared is the module of its layer again.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: not a Layer, or one without a counterpart in PyTorch: a gradient layer, a subclass, a
            Shared before its layer. The message names its place.

    >>> from tinyconv import Conv2d, ReLU
    >>> to_torch(Sequential(Conv2d(1, 4, 3, padding=1), ReLU()))
    Sequential(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): ReLU()
    )
    """
    instance("layer", layer, Layer)
    module: torch.nn.Module = _module(_torch(), layer, "", {})
    return module


def from_torch(module: "torch.nn.Module") -> Layer:
    """Return the layer of the same name, arguments, state, dtypes and modes, on the CPU.

    It does not share memory with `module`, whose forward is not called. What does not exist in a layer is
    left out if it does not change a result (`inplace`, gradients), and refused otherwise.

    Args:
        module: a module of torch.nn, an nn.Sequential or what `to_torch` makes, nested to any depth. Each
            Dropout gets an unseeded `generator`, which can be assigned. A module with parameters that
            appears again becomes a Shared.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: not a module, or one without a counterpart in tinyconv, including subclasses, as these may
            compute something else; hooks; another dtype than float32 or float64. The message names its place.
        ValueError: an option that tinyconv does not have, a parameter in two places, or a module of which
            only some parameters are frozen.

    >>> import torch
    >>> module = torch.nn.Linear(2, 1)
    >>> layer = from_torch(module)
    >>> layer, layer.weight.tolist() == module.weight.tolist()
    (Linear(2, 1), True)
    """
    torch = _torch()
    instance("module", module, torch.nn.Module)
    _check_nothing_shared(module)
    return _layer(torch, module, "", {})


def _torch() -> Any:
    return optional("torch", "from_torch and to_torch need PyTorch: pip install torch")


# To PyTorch


def _module(torch: Any, layer: Layer, place: str, made: dict[int, Any]) -> Any:
    """The module; `made` has those that exist by their layers' ids."""
    with named_in_errors(place, layer):
        if type(layer) is Shared:
            if id(layer.layer) not in made:
                raise TypeError("the layer that is shared must come before it")
            return made[id(layer.layer)]
        if type(layer) not in CONTAINERS:
            made[id(layer)] = module = _leaf_module(torch, layer)
            module.training = layer.training
            return module
    children = {
        name: _module(torch, child, inside(place, name), made) for name, child in layer.children.items()
    }
    if type(layer) is Sequential:
        module = torch.nn.Sequential(OrderedDict(children))
    elif type(layer) is Concat:
        module = _branches()["Concat"](*children.values(), dim=layer.dim)
    else:
        module = _branches()[type(layer).__name__](**children)
    module.training = layer.training
    made[id(layer)] = module
    return module


def _branches() -> dict[str, Any]:
    """The modules for containers that torch.nn does not have."""
    from tinyconv.convert.torch_modules import BRANCHES

    return BRANCHES


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


def _layer(torch: Any, module: Any, place: str, made: dict[int, Layer]) -> Layer:
    """The layer; `made` has those of modules with a state, by their ids."""
    layer: Layer
    if id(module) in made:
        return Shared(made[id(module)])
    with named_in_errors(place, module):
        kind = _branches().get(type(module).__name__)
        is_branches = kind is not None and type(module) is kind
        if type(module) is not torch.nn.Sequential and not is_branches:
            return _kept(made, module, _leaf_layer(torch, module))
    present = {name: child for name, child in module._modules.items() if child is not None}
    children = {name: _layer(torch, child, inside(place, name), made) for name, child in present.items()}
    if not is_branches:
        layer = Sequential(children)
    elif type(module).__name__ == "Concat":
        layer = Concat(*children.values(), dim=module.dim)
    else:
        joined: Any = _layer_of(type(module).__name__)
        layer = joined(**children)
    with named_in_errors(place, module):
        return _kept(made, module, layer)


def _kept(made: dict[int, Layer], module: Any, layer: Layer) -> Layer:
    """The layer, in the module's mode, to be shared if the module has a state and appears again."""
    _check_no_hooks(module)
    layer.training = module.training
    if layer.arrays():
        made[id(module)] = layer
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
    """Refuse a tensor that two modules have; one module may be in two places."""
    places: dict[int, str] = {}
    for place, one in module.named_modules():
        for name, tensor in (*one._parameters.items(), *one._buffers.items()):
            if id(tensor) in places and tensor is not None:
                both = f"{places[id(tensor)]!r} and {inside(place, name)!r}"
                raise ValueError(f"`module` has one tensor in two places, {both}")
            places[id(tensor)] = inside(place, name)
