"""The benchmarks' networks: both frameworks train the same network on the same images."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close, compare_layer

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# Of a 32x32 image, counted by hand from the papers' tables; the strides change the second, not the first.
PARAMETERS_AND_MULTIPLY_ADDS = {
    "resnet18": (11_173_962, 555_422_720),
    "vgg11": (9_231_114, 152_769_536),
    "mobilenet": (3_217_226, 46_354_432),
}


@pytest.fixture
def benchmark(imported: Callable[[Path, str], ModuleType]) -> Callable[[str], ModuleType]:
    """Imports a benchmark by its name."""
    return partial(imported, BENCHMARKS)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch's small batches are much slower on more where other processes run."""
    torch = pytest.importorskip("torch", reason="PyTorch's network is what is compared with")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", ["lenet", "cnn", *PARAMETERS_AND_MULTIPLY_ADDS])
def test_a_step_of_tinyconvs_network_and_pytorchs_agree(
    model: str, benchmark: Callable[[str], ModuleType]
) -> None:
    networks = benchmark("networks")
    x = np.random.default_rng(1).standard_normal((4, *networks.image_shape(model)))
    compare_layer(networks.tinyconv_network(model).to(np.float64), networks.pytorch_network(model), x)


@pytest.mark.parametrize("model", PARAMETERS_AND_MULTIPLY_ADDS)
def test_the_large_networks_have_the_size_of_those_they_are_named_after(
    model: str, benchmark: Callable[[str], ModuleType]
) -> None:
    network = benchmark("networks").tinyconv_network(model)
    parameters = sum(param.size for param in network.params.values())
    sizes = parameters, network.multiply_adds((1, 3, 32, 32))
    assert sizes == PARAMETERS_AND_MULTIPLY_ADDS[model]


@pytest.mark.parametrize(("model", "ours"), [("lenet", tc.models.lenet5), ("cnn", tc.models.mnist_cnn)])
def test_the_small_networks_are_those_of_tinyconv_models(
    model: str, ours: Callable[..., tc.Sequential], benchmark: Callable[[str], ModuleType]
) -> None:
    network, expected = benchmark("networks").tinyconv_network(model), ours(generator=0)
    assert repr(network) == repr(expected)
    for name, param in expected.params.items():
        np.testing.assert_array_equal(network.params[name], param)


def test_rgb_images_are_normalized_as_grey_ones_are(benchmark: Callable[[str], ModuleType]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 6), np.uint8)
    expected = np.concatenate([tc.data.normalize(images[:, c]) for c in range(3)], axis=1)
    assert_close(benchmark("train_speed").normalize_rgb(images), expected)


def test_frameworks_without_a_form_of_a_network_are_left_out_with_the_reason(
    benchmark: Callable[[str], ModuleType],
) -> None:
    networks, unavailable = benchmark("networks"), benchmark("harness").UnavailableError
    for setup in (networks.products, networks.jax_step, networks.dezero_step):
        with pytest.raises(unavailable, match="it is written for lenet and cnn only"):
            setup("resnet18")
