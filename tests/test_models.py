"""The networks of tinyconv.models, each compared with the same network written in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close, compare_layer
from tinyconv.arrays import Array

torch: Any = pytest.importorskip("torch", reason="PyTorch's networks are what is compared with")
nn: Any = torch.nn
Module: Any = nn.Module
F = torch.nn.functional
LR = 0.001


def conv_bn(c: int, o: int, k: int = 3, s: int = 1, g: int = 1) -> list[Any]:
    return [nn.Conv2d(c, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]


class BasicBlock(Module):  # type: ignore[misc]
    def __init__(self, c: int, o: int) -> None:
        super().__init__()
        s = 2 if c != o else 1
        self.body = nn.Sequential(*conv_bn(c, o, 3, s), nn.ReLU(), *conv_bn(o, o))
        if c != o:
            self.shortcut = nn.Sequential(*conv_bn(c, o, 1, s))

    def forward(self, x: Any) -> Any:
        return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)


def resnet18() -> Any:
    blocks = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    body = [layer for pair in blocks for layer in (BasicBlock(*pair), nn.ReLU())]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    return nn.Sequential(*conv_bn(3, 64), nn.ReLU(), *body, *head)


def mobilenet() -> Any:
    table = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    table += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    body: list[Any] = []
    for c, o, s in table:
        body += [*conv_bn(c, c, 3, s, c), nn.ReLU(), *conv_bn(c, o, 1), nn.ReLU()]
    return nn.Sequential(
        *conv_bn(3, 32), nn.ReLU(), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10)
    )


class DenseLayer(Module):  # type: ignore[misc]
    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        new = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, growth, 3, padding=1, bias=False))
        self.add_module("1", new)

    def forward(self, x: Any) -> Any:
        return torch.cat([x, getattr(self, "1")(x)], 1)


def densenet() -> Any:
    layers, c = [nn.Conv2d(3, 24, 3, padding=1, bias=False)], 24
    for block in range(3):
        if block:
            layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
        for _ in range(4):
            layers.append(DenseLayer(c, 12))
            c += 12
    head = nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10)
    return nn.Sequential(*layers, *head)


def double(c: int, o: int) -> Any:
    return nn.Sequential(*conv_bn(c, o), nn.ReLU(), *conv_bn(o, o), nn.ReLU())


class UNet(Module):  # type: ignore[misc]
    """Written flat: two levels down and up again; its parameters in the order of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.down0, self.down1, self.bottom = double(1, 16), double(16, 32), double(32, 64)
        self.up1, self.join1 = nn.ConvTranspose2d(64, 32, 2, 2), double(64, 32)
        self.up0, self.join0 = nn.ConvTranspose2d(32, 16, 2, 2), double(32, 16)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Any) -> Any:
        a = self.down0(x)
        b = self.down1(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.join1(torch.cat([b, self.up1(c)], 1))
        return self.last(self.join0(torch.cat([a, self.up0(b)], 1)))


class Renamed(Module):  # type: ignore[misc]
    """`module` with the names of another network's state, whose arrays are in the same order."""

    def __init__(self, module: Any, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def state_dict(self, *args: Any, **options: Any) -> Any:
        values = [v for k, v in self.module.state_dict().items() if not k.endswith("num_batches_tracked")]
        return dict(zip(self.names, values, strict=True))

    def load_state_dict(self, state: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override,unused-ignore]
        with torch.no_grad():
            for name, value in self.state_dict().items():
                value.copy_(state[name])

    def named_parameters(self, *args: Any, **options: Any) -> Any:
        params = {id(p) for p in self.module.parameters()}
        state = self.module.state_dict(keep_vars=True)
        values = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
        return ((n, v) for n, v in zip(self.names, values, strict=True) if id(v) in params)

    def named_buffers(self, *args: Any, **options: Any) -> Any:
        return iter(())

    def forward(self, x: Any) -> Any:
        return self.module(x)


def unet() -> tc.Sequential:
    return tc.models.unet(depth=2, dtype=np.float64, generator=0)


MODELS: dict[str, tuple[Callable[..., tc.Sequential], Callable[[], Any], tuple[int, ...], int]] = {
    "resnet18": (tc.models.resnet18, resnet18, (4, 3, 16, 16), 11_173_962),
    "mobilenet": (tc.models.mobilenet, mobilenet, (8, 3, 32, 32), 3_217_226),
    "densenet": (tc.models.densenet, densenet, (4, 3, 16, 16), 0),
    "unet": (lambda **_: unet(), UNet, (4, 1, 16, 24), 0),
}
models = pytest.mark.parametrize("name", MODELS)


def both(name: str) -> tuple[tc.Sequential, Any, Array]:
    make, theirs, shape, _ = MODELS[name]
    model, module = make(dtype=np.float64, generator=0), theirs().double()
    if name == "unet":
        module = Renamed(module, [key for key in model.state_dict() if "num_batches" not in key])
    return model, module, np.random.default_rng(1).standard_normal(shape)


@models
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_all_gradients_are_pytorchs(name: str, training: bool) -> None:
    model, module, x = both(name)
    compare_layer(model.train(training), module, x)


@models
def test_five_training_steps_are_pytorchs(name: str) -> None:
    model, module, x = both(name)
    module.load_state_dict({key: torch.tensor(value) for key, value in model.state_dict().items()})
    labels = np.arange(len(x)) % 2
    if name == "unet":
        labels = (x[:, 0] > 0).astype(np.int64)
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), tc.optim.SGD(model, LR, momentum=0.9), progress=False)
    history = trainer.fit([(x, labels)], 5)
    params = [param for _, param in module.named_parameters()]
    optimizer, losses = torch.optim.SGD(params, LR, momentum=0.9), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(torch.tensor(x)), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(history.step_losses, losses, rtol=1e-7)
    for key, param in module.named_parameters():
        assert_close(model.params[key], param.detach().numpy(), key, scale=1e3)


@models
def test_sizes_are_those_of_the_papers(name: str) -> None:
    make, _, _, parameters = MODELS[name]
    if parameters:
        assert sum(param.size for param in make(generator=0).params.values()) == parameters


def test_a_unet_scores_every_pixel_and_a_densenet_grows() -> None:
    net = tc.models.unet(3, 5, width=4, depth=2, generator=0)
    assert net.output_shape((2, 3, 8, 12)) == (2, 5, 8, 12)
    net = tc.models.densenet(7, growth_rate=4, block_config=(2, 3), generator=0)
    assert net.output_shape((2, 3, 8, 8)) == (2, 7)
    channels = [net.steps((2, 3, 8, 8))[i].output_shape[1] for i in (1, 2, 6, 7, 8, 9)]
    assert channels == [12, 16, 8, 12, 16, 20]
