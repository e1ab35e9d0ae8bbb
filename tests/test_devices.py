"""Layers, losses, optimisers and training on the GPU: on a real one, and on a stand-in for CuPy."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tests import strict_arrays
from tests.compare import assert_close
from tests.forking import needs_workers
from tests.test_layer_contract import CASES, Case
from tests.trainers import average_of, callbacks
from tinyconv import (
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Layer,
    Sequential,
    Trainer,
    data,
    gradcheck,
    hessian_operator,
    hessian_vector_product,
    load_weights,
    models,
    optim,
    save_weights,
)
from tinyconv.arrays import Array, gpu_available, moved
from tinyconv.data import streamed
from tinyconv.functional.conv import stacks
from tinyconv.gpu.cublas import matmul
from tinyconv.gpu.graph import StepGraph
from tinyconv.gradients.gradcheck import GradcheckError
from tinyconv.training import Callback, Run
from tinyconv.training.generators import model_generators

gpu_mark = pytest.mark.gpu


@pytest.fixture(params=["stand-in", pytest.param("GPU", marks=gpu_mark)])
def cupy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """CuPy, or what stands for it."""
    if request.param == "GPU":
        module = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not gpu_available():
            pytest.skip("a GPU was not found")
        yield module
        return
    with strict_arrays.installed() as module:
        yield module


def on_host(values: Any) -> Any:
    """Arrays in dicts and tuples, on the CPU."""
    if isinstance(values, dict):
        return {key: on_host(value) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        return [on_host(value) for value in values]
    return None if values is None else moved(values, np)


def assert_same(actual: Any, expected: Any, what: str = "") -> None:
    """Equal structure, and arrays that agree to rounding."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), what
        for key in expected:
            assert_same(actual[key], expected[key], f"{what} {key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), what
        for i, (own, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(own, other, f"{what} [{i}]")
    elif expected is None:
        assert actual is None, what
    else:
        assert_close(actual, expected, what)


def normal(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def every_pass(layer: Layer, x: Array, convert: Callable[[Array], Array]) -> dict[str, Any]:
    """Forward, tangent, backward and tangent of backward, with all that they leave behind."""
    y = layer.forward(convert(x))
    y = y[0] if isinstance(y, tuple) else y
    directions = {name: convert(normal(p.shape, 3)) for name, p in layer.params.items()}
    y_dot = layer.jvp(convert(normal(x.shape, 2)), directions)
    dx = layer.backward(convert(normal(y.shape, 4)))
    dx_dot = layer.backward_jvp(convert(normal(y.shape, 5)))
    left = {"gradients": layer.grads, "tangents": layer.grads_dot, "buffers": layer.buffers}
    return {"output": y, "output_dot": y_dot, "gradient": dx, "gradient_dot": dx_dot} | left


# Dropout draws its own numbers on a GPU; gradient layers have no tangent of their own.
RANDOM = ("Dropout", "Dropout2d")
THIRD_ORDER = ("GradientLayer", "GradientStep")
whole = {name: case for name, case in CASES.items() if not name.startswith((*RANDOM, *THIRD_ORDER))}


@pytest.mark.parametrize("case", whole.values(), ids=whole)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_layer_gives_the_same_on_the_gpu(cupy: Any, case: Case, training: bool) -> None:
    x = normal(case.shape, 1)
    expected = every_pass(case.make().train(training), x, lambda array: array)
    layer = case.make().train(training).to("cuda")
    found = every_pass(layer, x, cupy.asarray)
    assert_same(on_host(found), on_host(expected))
    assert all(isinstance(array, cupy.ndarray) for array in layer.state_dict().values())


@pytest.mark.parametrize("name", THIRD_ORDER)
def test_gradient_layers_give_the_same_on_the_gpu(cupy: Any, name: str) -> None:
    case = CASES[name]
    results = []
    for layer, convert in ((case.make(), np.asarray), (case.make().to("cuda"), cupy.asarray)):
        y = layer.forward(convert(normal(case.shape, 1)))
        dx = layer.backward(convert(normal(y.shape, 2)))
        results.append(on_host({"output": y, "gradient": dx, "gradients": layer.grads}))
    assert_same(results[1], results[0])


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_on_the_gpu_drops_its_share(cupy: Any, p: float) -> None:
    layer = Dropout(p, generator=0).to("cuda")
    y = moved(layer.forward(cupy.ones((50, 40))), np)
    dx = moved(layer.backward(cupy.ones((50, 40))), np)
    np.testing.assert_array_equal(y, dx)
    assert abs((y == 0).mean() - p) < 0.05
    np.testing.assert_allclose(y[y != 0], 1 / max(1 - p, 1e-9))


def test_models_and_losses_move_back_and_forth(cupy: Any) -> None:
    model = models.lenet5(generator=0)
    before = model.state_dict()
    model.to("cuda").to("cuda")
    assert all(isinstance(array, cupy.ndarray) for array in {**model.params, **model.grads}.values())
    for name, value in model.to("cpu").params.items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, before[name])
    criterion = CrossEntropyLoss(weight=np.array([1.0, 2.0, 3.0])).to("cuda")
    x, labels = normal((4, 3), 0), np.array([0, 2, 1, 2])
    expected = CrossEntropyLoss(weight=np.array([1.0, 2.0, 3.0])).forward(x, labels)
    assert_same(on_host(criterion.forward(cupy.asarray(x), cupy.asarray(labels))), expected)


def test_weights_move_between_the_devices(cupy: Any, tmp_path: Any) -> None:
    here, there = models.lenet5(generator=0), models.lenet5(generator=1).to("cuda")
    there.load_state_dict(here.state_dict())
    assert_same(on_host(there.state_dict()), here.state_dict())
    save_weights(there, tmp_path / "weights.safetensors")
    other = models.lenet5(generator=2)
    load_weights(other, tmp_path / "weights.safetensors")
    assert_same(other.state_dict(), here.state_dict())
    other.load_state_dict(there.state_dict())
    there.load_state_dict(there.state_dict())


def test_arrays_of_two_devices_are_refused_by_name(cupy: Any) -> None:
    layer, x = Conv2d(1, 2, 3), np.zeros((1, 1, 5, 5), np.float32)
    with pytest.raises(TypeError, match=r"`weight` on the CPU, `input` on the GPU"):
        layer.forward(cupy.asarray(x))
    with pytest.raises(TypeError, match=r"layer '0' \(Conv2d\): .*`weight` on the GPU, `input` on the CPU"):
        Sequential(layer).to("cuda").forward(x)
    y = layer.forward(cupy.asarray(x))
    with pytest.raises(TypeError, match="`grad_output` must be a cupy array"):
        layer.backward(np.zeros(y.shape, np.float32))
    with pytest.raises(TypeError, match="`target`"):
        CrossEntropyLoss().forward(cupy.zeros((2, 3), "float32"), np.array([0, 1]))


def test_an_unknown_device_is_refused() -> None:
    for wrong in ("cuda:1", "gpu"):
        with pytest.raises(ValueError, match=r"`target` .='(cuda:1|gpu)'. must be 'cpu', 'cuda', float32"):
            Conv2d(1, 1, 1).to(wrong)


@pytest.mark.skipif(gpu_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_is_missing() -> None:
    model = Conv2d(1, 1, 1)
    with pytest.raises(
        RuntimeError, match=r"^`device` \(='cuda'\) needs a GPU, its driver and CuPy: .*$"
    ) as error:
        model.to("cuda")
    assert "\n" not in str(error.value)
    assert not gpu_available()


PREDICTIONS = {
    name: normal((4, 3), 6)
    for name in (
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "KLDivLoss",
        "HingeEmbeddingLoss",
        "BCEWithLogitsLoss",
    )
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name", [*PREDICTIONS, "BCELoss", "CrossEntropyLoss", "NLLLoss", "CrossEntropyLoss, smooth"]
)
def test_every_loss_gives_the_same_on_the_gpu(cupy: Any, name: str, reduction: str) -> None:
    options: dict[str, Any] = {"reduction": reduction}
    prediction, target = normal((4, 3), 6), np.abs(normal((4, 3), 7)) % 1
    if name.startswith(("Cross", "NLL")):
        target = np.array([0, 2, 1, -100])
        options["weight"] = np.array([1.0, 0.5, 2.0])
    if name.endswith("smooth"):
        options["label_smoothing"] = 0.2
    if name == "BCELoss":
        prediction = 1 / (1 + np.exp(-prediction))
    results = []
    for convert, device in ((np.asarray, "cpu"), (cupy.asarray, "cuda")):
        criterion = getattr(tinyconv, name.partition(",")[0])(**options).to(device)
        loss = criterion.forward(convert(prediction), convert(target))
        loss_dot = criterion.jvp(convert(normal((4, 3), 8)))
        upstream = convert(np.asarray(normal(loss.shape, 9)))
        grad = criterion.backward(upstream)
        grad_dot = criterion.backward_jvp(convert(np.asarray(normal(loss.shape, 10))))
        results.append(on_host([loss, loss_dot, grad, grad_dot]))
    assert_same(results[1], results[0])


def test_a_class_that_does_not_exist_makes_the_loss_nan_on_the_gpu(cupy: Any) -> None:
    loss = CrossEntropyLoss().forward(cupy.asarray(normal((2, 3), 0)), cupy.asarray(np.array([0, 3])))
    assert np.isnan(moved(loss, np))


OPTIMIZERS: dict[str, Callable[[Layer], optim.Optimizer]] = {
    "SGD": lambda model: optim.SGD(model, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "Adam": lambda model: optim.Adam(model, 0.01, weight_decay=1e-3),
    "AdamW": lambda model: optim.AdamW(model, 0.01),
    "AdamW, amsgrad": lambda model: optim.AdamW(model, 0.01, betas=(0.5, 0.6), amsgrad=True),
    "NAdam": lambda model: optim.NAdam(model, 0.01, weight_decay=1e-3, momentum_decay=0.1),
    "RMSprop": lambda model: optim.RMSprop(model, 0.01, momentum=0.9, weight_decay=1e-3, centered=True),
    "Adagrad": lambda model: optim.Adagrad(model, 0.01, 0.1, 1e-3, initial_accumulator_value=0.1),
    "Adadelta": lambda model: optim.Adadelta(model, weight_decay=1e-3),
}


def one_cycle(optimizer: optim.Optimizer, steps: int) -> optim.Schedule:
    has_momentum = bool({"betas", "momentum"} & optimizer.options.keys())
    return optim.OneCycleLR(optimizer, 0.1, total_steps=steps, cycle_momentum=has_momentum)


def small_network() -> Sequential:
    """With a layer of each kind that training treats in its own way."""
    return Sequential(
        tinyconv.Conv2d(1, 3, 3, padding=1, dtype=np.float64, generator=0),
        tinyconv.ReLU(),
        # A bias before the batch norm would have a gradient of rounding errors.
        tinyconv.Conv2d(3, 4, 3, padding=1, bias=False, dtype=np.float64, generator=2),
        tinyconv.BatchNorm2d(4, dtype=np.float64),
        tinyconv.ReLU(),
        tinyconv.MaxPool2d(2),
        tinyconv.Flatten(),
        tinyconv.Linear(4 * 16, 3, dtype=np.float64, generator=1),
    )


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_gives_the_same_on_the_gpu(cupy: Any, make: Callable[[Layer], optim.Optimizer]) -> None:
    images, labels = normal((50, 1, 8, 8), 0), np.random.default_rng(0).integers(0, 3, 50)
    trainers = []
    for device in ("cpu", "cuda"):
        model = small_network()
        optimizer = make(model)
        schedule = one_cycle(optimizer, 23)
        trainer = Trainer(model, CrossEntropyLoss(), optimizer, schedule, device=device, progress=False)
        trainer.fit((images, labels), 2, batch_size=8, validation=(images, labels), generator=0)
        batches = data.DataLoader((images, labels), 8, shuffle=True, generator=1)
        trainer.fit(batches)
        trainer.fit(list(data.DataLoader((images, labels), 25)))
        trainers.append(trainer)
    here, there = trainers
    assert_same(on_host(there.model.state_dict()), here.model.state_dict())
    np.testing.assert_allclose(there.history.step_losses, here.history.step_losses, rtol=1e-9)
    for epoch, other in zip(there.history.epochs, here.history.epochs, strict=True):
        assert epoch.train_accuracy == other.train_accuracy
        assert epoch.validation_loss == pytest.approx(other.validation_loss)
    assert isinstance(there.model.params["0.weight"], cupy.ndarray)
    assert there.model.to("cpu").predict(images).shape == (50, 3)


@pytest.mark.parametrize("make", [models.lenet5, models.mnist_cnn])
def test_a_training_step_reads_nothing_and_copies_nothing_to_the_host(make: Callable[..., Layer]) -> None:
    with strict_arrays.installed() as cupy:
        model = make(generator=0).to("cuda")
        criterion, optimizer = CrossEntropyLoss(), optim.AdamW(model)
        x = cupy.asarray(data.normalize(np.zeros((4, 28, 28), np.uint8)))
        labels = cupy.asarray(np.arange(4))
        before = strict_arrays.reads
        for _ in range(2):
            criterion.forward(model.forward(x), labels)
            optimizer.zero_grad()
            model.backward_params(criterion.backward())
            optimizer.step()
        assert strict_arrays.reads == before


def test_an_epoch_on_the_gpu_reads_its_figures_at_the_end() -> None:
    with strict_arrays.installed():
        model = small_network()
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
        images, labels = normal((64, 1, 8, 8), 0), np.zeros(64, int)
        reads = []
        for batch_size in (2, 32):
            before = strict_arrays.reads
            trainer.fit((images, labels), batch_size=batch_size, generator=0)
            reads.append(strict_arrays.reads - before)
        assert reads[0] == reads[1] <= 5


def test_a_loss_that_is_not_finite_is_refused_at_the_end_of_the_epoch(cupy: Any) -> None:
    model = small_network()
    trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
    images = normal((6, 1, 8, 8), 0)
    images[4] = np.inf
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="in epoch 1, step 3"):
        trainer.fit([(images[i : i + 2], np.zeros(2, int)) for i in (0, 2, 4)])


def test_too_large_a_batch_is_named(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(Exception):
        """As CuPy's."""

    def forward(self: Any, x: Array) -> Array:
        raise OutOfMemoryError("Out of memory allocating 8,589,934,592 bytes")

    monkeypatch.setattr(Conv2d, "forward", forward)
    model = small_network()
    trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
    images, labels = normal((6, 1, 8, 8), 0), np.zeros(6, int)
    with pytest.raises(MemoryError, match=r"8,589,934,592 bytes.*a batch of 4"):
        trainer.fit((images, labels), batch_size=4)


@needs_workers
def test_workers_and_a_gpu_do_not_go_together(cupy: Any) -> None:
    model = small_network()
    with pytest.raises(ValueError, match=r"`workers` or .* .=2. must be 1 on a GPU"):
        Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", workers=2)


def test_hessian_vector_products_give_the_same_on_the_gpu(cupy: Any) -> None:
    x, labels = normal((4, 1, 8, 8), 0), np.array([0, 1, 2, 0])
    results = []
    for convert, device in ((np.asarray, "cpu"), (cupy.asarray, "cuda")):
        model = small_network().to(device)
        directions = {name: convert(normal(p.shape, 3)) for name, p in model.params.items()}
        arrays = (convert(x), convert(labels))
        product = hessian_vector_product(model, CrossEntropyLoss(), *arrays, params_dot=directions)
        results.append(on_host([product.x, product.params]))
    assert_same(results[1], results[0])


def test_gradcheck_takes_a_layer_and_arrays_on_the_gpu(cupy: Any) -> None:
    x = normal((2, 1, 5, 5), 0)
    layer = Conv2d(1, 2, 3, generator=0)
    for second_order in (False, True):
        found = gradcheck(layer.to("cuda"), cupy.asarray(x), second_order=second_order)
        assert found == gradcheck(layer.to("cpu"), x, second_order=second_order)
    assert gradcheck(F.relu, cupy.asarray(x)).checked == x.size
    criterion = CrossEntropyLoss(weight=np.ones(3)).to("cuda")
    assert gradcheck(criterion, [cupy.asarray(normal((4, 3), 0)), cupy.asarray(np.arange(4) % 3)])
    wrong = Conv2d(1, 2, 3, generator=0).to("cuda")
    wrong._function_bias = lambda grad_output: grad_output.sum(axis=(0, 2, 3)) * 2
    with pytest.raises(GradcheckError, match="bias"):
        gradcheck(wrong, cupy.asarray(x))


def test_the_whole_hessian_works_on_the_gpu(cupy: Any) -> None:
    x, labels = normal((4, 3), 0), np.array([0, 1, 2, 0])
    products = []
    for convert, device in ((np.asarray, "cpu"), (cupy.asarray, "cuda")):
        model = tinyconv.Linear(3, 4, dtype=np.float64, generator=0).to(device)
        hessian = hessian_operator(model, CrossEntropyLoss(), convert(x), convert(labels))
        products.append(hessian @ normal((16,), 1))
    assert_same(products[1], products[0])


def test_an_interrupted_epoch_keeps_its_losses_and_the_next_goes_on(cupy: Any) -> None:
    model = small_network()
    trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
    batch = normal((4, 1, 8, 8), 0), np.zeros(4, int)

    def interrupted() -> Iterator[tuple[Array, Array]]:
        yield batch
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(interrupted())
    assert len(trainer.history.step_losses) == 1
    trainer.fit([batch, batch])
    assert len(trainer.history.step_losses) == 3
    assert copy.deepcopy(trainer).history.step_losses == trainer.history.step_losses


def test_a_trainer_follows_its_model_and_batches_follow_the_trainer(cupy: Any) -> None:
    model = small_network()
    optimizer = optim.SGD(model, momentum=0.9)
    batches = data.DataLoader((normal((8, 1, 8, 8), 0), np.zeros(8, int)), 4)
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, device="cuda", progress=False)
    trainer.fit(batches)
    assert isinstance(batches.dataset[0], cupy.ndarray)
    model.to("cpu")
    optimizer.to("cpu")
    trainer.fit(batches)
    assert isinstance(batches.dataset[0], np.ndarray)
    assert trainer.evaluate(batches).accuracy is not None


def trained(device: str, cuda_graph: bool | None, make: Callable[[Layer], optim.Optimizer]) -> Trainer:
    """A trainer after two epochs of four batches, the last of them smaller."""
    images, labels = normal((29, 1, 8, 8), 0), np.random.default_rng(0).integers(0, 3, 29)
    optimizer = make(small_network())
    schedule = one_cycle(optimizer, 9)
    trainer = Trainer(
        optimizer.model,
        CrossEntropyLoss(),
        optimizer,
        schedule,
        device=device,
        cuda_graph=cuda_graph,
        progress=False,
    )
    trainer.fit((images, labels), 2, batch_size=8, generator=0)
    return trainer


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_as_a_cuda_graph_gives_the_same_bits(
    cupy: Any, make: Callable[[Layer], optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []
    launch = StepGraph.__call__

    def counted(self: StepGraph, *batch: Array) -> Array:
        sums = launch(self, *batch)
        launches.append(self._graph is not None)
        return sums

    monkeypatch.setattr(StepGraph, "__call__", counted)
    plain, graph = (trained("cuda", cuda_graph, make) for cuda_graph in (False, None))
    assert launches == [False] + [True] * 7
    for name, value in on_host(plain.model.state_dict()).items():
        np.testing.assert_array_equal(on_host(graph.model.state_dict())[name], value, err_msg=name)
    assert graph.history.step_losses == plain.history.step_losses
    assert [e.train_accuracy for e in graph.history.epochs] == [
        e.train_accuracy for e in plain.history.epochs
    ]


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,)], ids=str)
def test_a_linear_layer_before_a_relu_gives_the_same(cupy: Any, shape: tuple[int, ...]) -> None:
    model = Sequential(tinyconv.Linear(4, 3, dtype=np.float64, generator=0), tinyconv.ReLU())
    expected = model.forward(normal(shape, 0))
    assert_same(on_host(model.to("cuda").forward(cupy.asarray(normal(shape, 0)))), expected)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (1, 5, 6)], ids=str)
def test_a_convolution_before_a_relu_gives_the_same(cupy: Any, shape: tuple[int, ...]) -> None:
    model = Sequential(Conv2d(1, 3, 3, dtype=np.float64, generator=0), tinyconv.ReLU())
    expected = model.forward(normal(shape, 0))
    assert_same(on_host(model.to("cuda").forward(cupy.asarray(normal(shape, 0)))), expected)


def test_what_changes_between_epochs_reaches_the_graph(cupy: Any) -> None:
    images, labels = normal((16, 1, 8, 8), 0), np.zeros(16, int)
    states = []
    for cuda_graph in (False, True):
        model = small_network()
        model[0].requires_grad_(False)
        optimizer = optim.SGD(model, 0.1, momentum=0.9)

        def on_epoch(_: Any, model: Any = model, optimizer: optim.SGD = optimizer) -> None:
            model[0].requires_grad_()
            optimizer.weight_decay += 0.01
            optimizer.load_state_dict(optimizer.state_dict())

        trainer = Trainer(
            model,
            CrossEntropyLoss(),
            optimizer,
            callbacks=callbacks(model, on_epoch=on_epoch),
            device="cuda",
            cuda_graph=cuda_graph,
            progress=False,
        )
        trainer.fit((images, labels), 3, batch_size=4, generator=0)
        momentum = optimizer.state["0.weight"]["momentum_buffer"]
        states.append(on_host({**model.state_dict(), "momentum": momentum}))
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)


@pytest.mark.parametrize("options", [{"norm": 0.1, "value": 0.05}, {"average": 0.9}], ids=str)
def test_clipping_and_averages_give_the_same_from_a_graph(cupy: Any, options: dict[str, Any]) -> None:
    images, labels = normal((16, 1, 8, 8), 0), np.zeros(16, int)
    states = []
    for cuda_graph in (False, True):
        model = Sequential(*small_network(), tinyconv.Linear(3, 3, dtype=np.float64, generator=5))
        optimizer = optim.SGD(model, 0.1)
        trainer = Trainer(
            model,
            CrossEntropyLoss(),
            optimizer,
            device="cuda",
            cuda_graph=cuda_graph,
            callbacks=callbacks(model, **options),
            progress=False,
        )
        trainer.fit((images, labels), 2, batch_size=4, generator=0)
        kept = average_of(trainer)
        average = kept.module.state_dict() if kept else {}
        states.append(on_host({**model.state_dict(), **{f"average {k}": v for k, v in average.items()}}))
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)


def captured(cupy: Any, run: Callable[[], Any]) -> tuple[Any, Any]:
    """What `run` gives as a graph, after its launch, and the graph."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            outputs = run()
        finally:
            graph = stream.end_capture()
    graph.launch()
    return outputs, graph


READS = "BatchNorm2d, cumulative"  # the number of batches, on the host


@pytest.mark.parametrize("name", whole)
def test_layers_give_the_same_from_a_graph(cupy: Any, name: str) -> None:
    case = whole[name]
    layer, other = (case.make().to("cuda") for _ in range(2))
    if name == READS or model_generators(layer):
        pytest.skip("its steps run without a graph")
    x = cupy.asarray(normal(case.shape, 1))
    y = layer.forward(x)
    grad = cupy.asarray(normal(y.shape, 2))
    layer.backward(grad)  # compiles
    other.load_state_dict(layer.state_dict())
    layer.zero_grad()
    for step in range(2):
        x[...] = cupy.asarray(normal(case.shape, step))
        if step == 0:
            (y, dx), graph = captured(cupy, lambda: (layer.forward(x), layer.backward(grad)))
        else:
            graph.launch()
        expected = other.forward(x), other.backward(grad), other.grads, other.buffers
        for found, value in zip((y, dx, layer.grads, layer.buffers), expected, strict=True):
            assert_same(on_host(found), on_host(value))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [*PREDICTIONS, "CrossEntropyLoss", "NLLLoss"])
def test_losses_give_the_same_from_a_graph(cupy: Any, name: str, reduction: str) -> None:
    criterion = getattr(tinyconv, name)(reduction=reduction).to("cuda")
    x, target = cupy.asarray(normal((4, 3), 6)), cupy.asarray(np.abs(normal((4, 3), 7)) % 1)
    if name in ("CrossEntropyLoss", "NLLLoss"):
        target = cupy.asarray(np.array([0, 2, 1, -100]))

    def step() -> list[Array]:
        return [criterion.forward(x, target), criterion.backward()]

    expected = on_host(step())
    outputs, graph = captured(cupy, step)
    assert_same(on_host(outputs), expected)
    x *= 2
    graph.launch()
    assert_same(on_host(outputs), on_host(step()))


class Watches(Callback):
    """Reads the gradients, which a graph must not."""

    def on_gradients(self, run: Run) -> None:
        self.sums = [*getattr(self, "sums", []), float(run.model.grads["1.bias"].sum())]


class WatchesToo(Watches):
    pass


class ClaimsToReplay(Watches):
    replayable = True


class Noise(tinyconv.ReLU):
    """Draws from a generator of its own, as a user's layer may."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = {"uniform": np.random.default_rng(0)}

    def forward(self, x: Array) -> Array:
        noisy: Array = x + self.noise["uniform"].random()
        return super().forward(noisy)


class Reads(tinyconv.ReLU):
    """Divides by a number that it reads on the host."""

    def forward(self, x: Array) -> Array:
        quotient: Array = x / max(1.0, float(abs(x).max()))
        return super().forward(quotient)


WITHOUT_A_GRAPH: dict[str, tuple[Callable[[], Layer], Callable[[], Callback], str]] = {
    "dropout": (partial(Dropout, 0.5, generator=0), Callback, "the model draws random numbers"),
    "a generator of a user's layer": (Noise, Callback, "the model draws random numbers"),
    "a callback": (tinyconv.ReLU, WatchesToo, "a callback has its own `on_gradients`"),
    "a layer that reads": (Reads, Callback, "capturing one failed"),
    "a callback that reads": (tinyconv.ReLU, ClaimsToReplay, "capturing one failed"),
    "a norm that is read": (
        tinyconv.ReLU,
        partial(tinyconv.training.ClipGradNorm, 0.1, error_if_nonfinite=True),
        "capturing one failed",
    ),
    "an average of all batches": (
        partial(tinyconv.BatchNorm1d, 4, momentum=None, dtype=np.float64),
        Callback,
        "capturing one failed",
    ),
}


@pytest.mark.parametrize(("first", "callback", "why"), WITHOUT_A_GRAPH.values(), ids=WITHOUT_A_GRAPH)
def test_what_cannot_be_captured_trains_without_a_graph_and_the_log_says_so(
    cupy: Any,
    caplog: pytest.LogCaptureFixture,
    first: Callable[[], Layer],
    callback: Callable[[], Callback],
    why: str,
) -> None:
    states = []
    for cuda_graph in (False, True):
        model = Sequential(first(), tinyconv.Linear(4, 3, dtype=np.float64, generator=0))
        watching = callback()
        trainer = Trainer(
            model,
            CrossEntropyLoss(),
            optim.SGD(model, lr=0.1, momentum=0.9),
            callbacks=[watching],
            device="cuda",
            cuda_graph=cuda_graph,
            progress=False,
        )
        caplog.clear()
        with caplog.at_level("INFO"):
            trainer.fit((normal((8, 4), 0), np.arange(8) % 3), 2, batch_size=2, generator=0)
        assert ("without a CUDA graph" in caplog.text) == cuda_graph
        states.append([on_host(model.state_dict()), getattr(watching, "sums", None)])
    assert why in caplog.text
    assert caplog.text.count("without a CUDA graph") == 1
    (state, sums), (expected, expected_sums) = states[1], states[0]
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    assert sums == expected_sums


def test_a_model_that_moved_between_epochs_is_captured_anew(cupy: Any) -> None:
    images, labels = normal((16, 1, 8, 8), 0), np.zeros(16, int)
    states = []
    for moves in (False, True):
        model = small_network()

        def on_epoch(_: Any, model: Layer = model, moves: bool = moves) -> None:
            if moves:
                model.to("cpu").to("cuda")

        moving = callbacks(model, on_epoch=on_epoch)
        optimizer = optim.SGD(model)
        trainer = Trainer(
            model, CrossEntropyLoss(), optimizer, callbacks=moving, device="cuda", progress=False
        )
        trainer.fit((images, labels), 3, batch_size=4, generator=0)
        states.append(on_host(model.state_dict()))
    assert_same(states[1], states[0])


def test_a_failing_step_ends_the_capture(cupy: Any) -> None:
    def step(updates: Any, inputs: Any, targets: Any) -> Any:
        if capturing:
            raise ValueError("while it is captured")
        return inputs.sum(axis=0)

    capturing = False
    graph, x = StepGraph(step, list, list, cupy), cupy.zeros((2, 3))
    graph(x, x)
    capturing = True
    with pytest.raises(ValueError, match="while it is captured"):
        graph(x, x)
    assert moved(cupy.asarray(np.ones(3)).sum(), np) == 3


def test_a_graph_on_the_cpu_is_refused() -> None:
    model = small_network()
    with pytest.raises(ValueError, match=r"`cuda_graph` .=True. needs a GPU"):
        Trainer(model, CrossEntropyLoss(), optim.SGD(model), cuda_graph=True)


def test_tf32_is_said_in_the_log(
    cupy: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_network()
    trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
    batch = normal((4, 1, 8, 8), 0), np.zeros(4, int)
    trainer.fit([batch])
    assert "TF32" not in caplog.text
    monkeypatch.setenv("CUPY_TF32", "1")
    trainer.fit([batch])
    assert "TF32 is on" in caplog.text


@pytest.mark.parametrize("length", [0, 5, 8, 24, 61])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_set_that_does_not_fit_is_streamed(
    cupy: Any, length: int, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "CHUNK_BYTES", 8 * 3 * (8 * 6 + 8))  # three batches
    images, labels = normal((length, 6), 0), np.arange(length)

    def batches() -> data.DataLoader:
        return data.DataLoader((images, labels), 8, shuffle=shuffle, generator=0, transform=lambda x: x * 2)

    expected, chunks = batches(), streamed.Streamed(batches(), cupy)
    for _ in range(2):
        found = [on_host([x, y]) for x, y in chunks]
        assert_same(found, [[x, y] for x, y in expected])
    assert len(chunks) == len(expected)


def test_training_streams_what_does_not_fit(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = trained("cuda", None, OPTIMIZERS["SGD"]).model.state_dict()
    monkeypatch.setattr("tinyconv.training.batches.fits", lambda batches, xp: False)
    assert_same(on_host(trained("cuda", None, OPTIMIZERS["SGD"]).model.state_dict()), on_host(here))


def test_half_of_the_free_memory_is_left_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with strict_arrays.installed() as cupy:
        batches = data.DataLoader((np.zeros((100, 8), np.uint8), np.zeros(100, np.uint8)))
        monkeypatch.setattr(strict_arrays, "free_memory", 1800)
        assert streamed.fits(batches, cupy)
        monkeypatch.setattr(strict_arrays, "free_memory", 1799)
        assert not streamed.fits(batches, cupy)


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "rows": lambda a: a,
    "columns": lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "rows with gaps": lambda a: a.repeat(2, axis=-2)[..., ::2, :],
    "values with gaps": lambda a: a.repeat(2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1],
    "one for all": lambda a: (a[:1] + a * 0)[:1].repeat(len(a), axis=0) if a.ndim == 3 else a,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stack", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_products_on_the_gpu_take_every_layout(
    cupy: Any, left: str, right: str, stack: tuple[int, ...], dtype: str
) -> None:
    for m, k, n in [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (0, 2, 3), (2, 0, 3), (1, 1, 1)]:
        a = LAYOUTS[left](cupy.asarray(normal((*stack, m, k), 0).astype(dtype)))
        b = LAYOUTS[right](cupy.asarray(normal((*stack, k, n), 1).astype(dtype)))
        expected = on_host(a) @ on_host(b)
        product = matmul(a, b)
        assert product.dtype == dtype
        np.testing.assert_allclose(on_host(product), expected, rtol=1e-5)
        out = cupy.zeros((*stack, m, n + 3), dtype)[..., 1 : n + 1]
        assert matmul(a, b, out) is out
        np.testing.assert_allclose(on_host(out), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_on_the_gpu_take_stacks_that_overlap_and_broadcast(cupy: Any, dtype: str) -> None:
    memory, a = normal((5, 36), 0).astype(dtype), normal((4, 6), 1).astype(dtype)
    size = memory.itemsize
    shape, strides = (5, 7, 6, 3), (36 * size, 3 * size, 3 * size, size)  # windows of 6 pixels of 3 values
    windows = np.lib.stride_tricks.as_strided(memory, shape, strides)
    there = cupy.lib.stride_tricks.as_strided(cupy.asarray(memory), shape, strides)
    np.testing.assert_allclose(on_host(matmul(cupy.asarray(a), there)), a @ windows, rtol=1e-4, atol=1e-5)
    out = cupy.ones((5, 7, 4, 3), dtype)
    assert matmul(cupy.asarray(a), there, out, add=True) is out
    np.testing.assert_allclose(on_host(out), a @ windows + 1, rtol=1e-4, atol=1e-5)
    empty = cupy.asarray(a[:, :0])
    np.testing.assert_allclose(on_host(matmul(empty, there[:, :, :0], out, add=True)), on_host(out))


@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2}], ids=str)
def test_pooling_on_the_gpu_takes_the_first_of_equal_values_and_nan(cupy: Any, options: Any) -> None:
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 7, 9)).astype(np.float32)
    x[0, 0, 2:4, 2:5] = np.nan
    x[1, 1] = -np.inf
    expected, winners = F.max_pool2d_saved(x, **options)
    found = F.max_pool2d_saved(cupy.asarray(x), **options)
    np.testing.assert_array_equal(on_host(found[0]), expected)
    np.testing.assert_array_equal(on_host(found[1]), winners)
    assert found[1].dtype == winners.dtype
    g = normal(expected.shape, 1).astype(np.float32)
    g[0, 0, 0, 0] = np.inf
    dx = F.max_pool2d_saved_backward(cupy.asarray(g), found[1], x.shape, **options)
    np.testing.assert_allclose(on_host(dx), F.max_pool2d_saved_backward(g, winners, x.shape, **options))


@pytest.mark.parametrize(
    "transform",
    [
        None,
        data.normalize,
        partial(data.normalize, std=0.5),
        lambda images: images[:, None] / np.float32(255),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_graph_gathers_the_samples_of_a_data_loader(cupy: Any, transform: Any, shuffle: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    if transform is None:
        images = images[:, None].astype(np.float32)
    labels, losses = np.arange(40) % 3, []
    for device in ("cpu", "cuda"):
        model = small_network().to(np.float32)
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device=device, progress=False)
        loader = data.DataLoader((images, labels), 8, shuffle, generator=3, transform=transform)
        losses.append(trainer.fit(loader, 3).step_losses)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding": (1, 2)},
    "stride": {"stride": (2, 1), "padding": 1},
    "dilation": {"dilation": (1, 2)},
    "groups": {"groups": 2},
    "groups, stride": {"groups": 2, "stride": 2},
}
CHANNELS = {"few channels": 4, "many channels": 36}


@pytest.mark.parametrize("options", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("samples", [1, 20])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize("algorithm", [None, "columns"])
def test_convolutions_give_the_same_on_the_gpu(
    cupy: Any, options: dict[str, Any], samples: int, size: int, channels: int, algorithm: str | None
) -> None:
    x, w = (
        normal((samples, channels, 7, 8), 0),
        normal((6, channels // options.get("groups", 1), size, size), 1),
    )
    y = F.conv2d(x, w, **options)
    g = normal(y.shape, 2)
    there = [cupy.asarray(array) for array in (x, w, g)]
    options = {**options, "algorithm": algorithm}
    assert_same(on_host(F.conv2d(there[0], there[1], **options)), y)
    expected = F.conv2d_backward(g, x, w, **options)
    assert_same(list(on_host(F.conv2d_backward(there[2], *there[:2], **options))), list(expected))


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_convolutions_on_the_gpu_are_the_same_in_blocks_of_rows(
    cupy: Any, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = normal((20, channels, 9, 8), 0), normal((6, channels, 3, 3), 1)
    y = F.conv2d(x, w, padding=1)
    g = normal(y.shape, 2)
    monkeypatch.setattr(stacks, "BLOCK_BYTES", 4 * y[:, :, :1].nbytes * channels)
    own_x, own_w, own_g = (cupy.asarray(array) for array in (x, w, g))
    assert_same(on_host(F.conv2d(own_x, own_w, padding=1)), y)
    expected = F.conv2d_backward(g, x, w, padding=1)
    assert_same(list(on_host(F.conv2d_backward(own_g, own_x, own_w, padding=1))), list(expected))


@pytest.mark.parametrize("size", [(1, 3), (3, 3), (3, 1)], ids=str)
def test_a_channel_that_was_inserted_is_convolved_right_on_the_gpu(cupy: Any, size: tuple[int, int]) -> None:
    stored, w = normal((7, 8, 20), 0), normal((6, 1, *size), 1)
    x = stored[:, :, None].transpose(3, 2, 0, 1)  # the channel's stride is 0
    g = normal(F.conv2d(x, w).shape, 2)
    there = cupy.asarray(stored)[:, :, None].transpose(3, 2, 0, 1)
    assert_same(on_host(F.conv2d(there, cupy.asarray(w))), F.conv2d(x, w))
    found = F.conv2d_weight(there, w.shape, cupy.asarray(g))
    assert_same(on_host(found), F.conv2d_weight(x, w.shape, g))


def test_on_a_gpu_an_algorithm_is_columns_or_refused(cupy: Any) -> None:
    x, w = normal((2, 3, 6, 6), 0), normal((4, 3, 3, 3), 1)
    expected = F.conv2d(x, w, algorithm="columns")
    on_device = cupy.asarray(x), cupy.asarray(w)
    assert_same(cupy.asnumpy(F.conv2d(*on_device, algorithm="columns")), expected)
    for name in ("windows", "winograd"):
        with pytest.raises(ValueError, match=rf"`algorithm` \(='{name}'\) must be 'columns' on a GPU"):
            F.conv2d(*on_device, algorithm=name)
    with pytest.raises(ValueError, match=r"`algorithm` \(='fastest'\) must be one of"):
        F.conv2d(*on_device, algorithm="fastest")
