"""PyTorch modules for layers that torch.nn does not have; imported only where PyTorch is."""

import torch
from torch import nn

Tensor = torch.Tensor


class Residual(nn.Module):
    """Compute body(x) + shortcut(x), as `tinyconv.Residual` does."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        output: Tensor = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return output


class Concat(nn.Module):
    """Concatenate the outputs of several modules, as `tinyconv.Concat` does."""

    def __init__(self, *layers: nn.Module, dim: int = 1) -> None:
        super().__init__()
        for name, layer in enumerate(layers):
            self.add_module(str(name), layer)
        self.dim = dim

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the outputs, concatenated; a tuple has an input for each module."""
        layers = self._modules.values()  # `children` leaves out a module that appears again
        inputs = x if isinstance(x, tuple) else (x,) * len(layers)
        outputs = [layer(own) for layer, own in zip(layers, inputs, strict=True) if layer is not None]
        return torch.cat(outputs, self.dim)


class Gate(nn.Module):
    """Compute body(x) * gate(x), as `tinyconv.Gate` does."""

    def __init__(self, gate: nn.Module, body: nn.Module | None = None) -> None:
        super().__init__()
        self.gate, self.body = gate, body

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        output: Tensor = (x if self.body is None else self.body(x)) * self.gate(x)
        return output


BRANCHES = {kind.__name__: kind for kind in (Residual, Concat, Gate)}
