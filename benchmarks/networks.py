"""The two networks in PyTorch."""

from typing import Any


def pytorch_network(model: str) -> Any:
    """LeNet-5 ("lenet") or the larger CNN ("cnn"), as tinyconv.models has them."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    lenet = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()]
    lenet += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    lenet += [nn.Linear(84, 10)]
    cnn = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
    cnn += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*{"lenet": lenet, "cnn": cnn}[model])
