"""Instance norm with its running statistics; division by lengths; pixels in channels."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare, compare_layer
from tinyconv.arrays import Array


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def test_running_statistics_are_those_of_pytorch_after_some_batches() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for momentum in (0.3, None):
        layer = tc.InstanceNorm2d(
            3, momentum=momentum, affine=True, track_running_stats=True, dtype=np.float64
        )
        theirs = torch.nn.InstanceNorm2d(3, momentum=momentum, affine=True, track_running_stats=True)
        for seed, batch in ((0, 2), (1, 5), (2, 1)):
            compare_layer(layer, theirs, 3 * normal(batch, 3, 4, 5, seed=seed) + 7)
        assert layer.num_batches_tracked == 0
        compare_layer(layer, theirs, normal(3, 4, 5))
        compare_layer(layer, theirs, normal(3, 4, 1))
        compare_layer(layer, theirs, normal(2, 3, 1, 5))
        compare_layer(layer.eval(), theirs, normal(2, 3, 4, 5))
        compare_layer(layer, theirs, normal(3, 1, 1))


@pytest.mark.parametrize("use_input_stats", [True, False])
def test_the_function_updates_and_reads_statistics_as_pytorch(use_input_stats: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w, b = normal(2, 3, 5), normal(3, seed=1), normal(3, seed=2)
    running = normal(3, seed=3), np.exp(normal(3, seed=4))
    ours, theirs = [a.copy() for a in running], [torch.tensor(a) for a in running]
    y = F.instance_norm(x, ours[0], ours[1], w, b, use_input_stats, 0.4, 1e-3)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = torch.nn.functional.instance_norm(
        tensors[0], *theirs, *tensors[1:], use_input_stats=use_input_stats, momentum=0.4, eps=1e-3
    )
    assert_close(y, expected.detach())
    for own, other, before in zip(ours, theirs, running, strict=True):
        assert_close(own, other.numpy())
        assert (own == before).all() != use_input_stats
    g = normal(*x.shape, seed=5)
    kept = [a.copy() for a in ours]
    grads = F.instance_norm_backward(g, x, ours[0], ours[1], w, b, use_input_stats, 0.4, 1e-3)
    for grad, other in zip(grads, torch.autograd.grad(expected, tensors, torch.tensor(g)), strict=True):
        assert_close(grad, other.numpy())
    np.testing.assert_array_equal(ours, kept)


def test_parts_of_a_batch_give_the_statistics_of_the_whole() -> None:
    from tinyconv.functional.normalization.instance_norm import update_statistics

    x, whole = normal(5, 3, 4, 2), (np.zeros(3), np.ones(3))
    update_statistics(x, *whole, 0.25)
    sums: list[Array] = []
    update_statistics(x[:2], np.zeros(3), np.ones(3), 0.25, lambda a: sums.append(a) or a)  # type: ignore[func-returns-value]
    parts = (np.zeros(3), np.ones(3))
    update_statistics(x[2:], *parts, 0.25, lambda a: a + sums[0])
    assert_close(parts, whole)
    update_statistics(x[:0], *parts, 0.25, lambda a: a)
    assert_close(parts, whole)


def test_what_pytorch_refuses_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f, z, t = torch.nn.functional, np.zeros, torch.zeros

    def check(match: str, shape: tuple[int, ...], **options: Any) -> None:
        theirs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        both_refuse(
            lambda: F.instance_norm(z(shape), **options),
            lambda: f.instance_norm(t(shape).double(), **theirs),
            match,
        )

    check("`input` .* must have more than one position", (2, 3, 1, 1))
    check("`input` .* must have more than one position", (2, 3))
    check("`running_mean` and `running_var` must be given", (2, 3, 4), use_input_stats=False)
    check("`running_mean` and `running_var` must both", (2, 3, 4), running_mean=z(3))
    check("`running_mean`", (2, 3, 4), running_mean=z(2), running_var=z(2))
    check("`weight`", (2, 3, 4), weight=z(2))
    layer = tc.InstanceNorm2d(3, track_running_stats=True)
    with pytest.raises(ValueError, match=r"`input` .* must have more than one position"):
        layer(np.zeros((2, 3, 1, 1), np.float32))
    with pytest.raises(ValueError, match=r"must have the form \(N, 3, H, W\) or \(3, H, W\)"):
        layer(np.zeros((2, 4, 5, 5), np.float32))
    for name, wrong in (
        ("pixel_shuffle", [((1, 6, 2, 2), 2), ((4, 4), 2), ((1, 4, 2, 2), 0), ((1, 4, 2, 2), -2)]),
        ("pixel_unshuffle", [((1, 1, 3, 4), 2), ((1, 1, 4, 3), 2), ((4, 4), 2), ((1, 4, 2, 2), 0)]),
    ):
        for shape, r in wrong:
            both_refuse(partial(getattr(F, name), z(shape), r), partial(getattr(f, name), t(shape), r), "`")
    both_refuse(lambda: F.normalize(z(3)), lambda: f.normalize(t(3)), "`dim`")
    with pytest.raises(TypeError, match="`p`"):
        F.normalize(z((2, 3)), "fro")  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [2.0, 1.0, 0.0, 0.5, 3.0, -1.0, -2.5, np.inf, -np.inf])
@pytest.mark.parametrize("eps", [1e-12, 1.0, 2.5])
def test_lengths_of_every_kind_are_pytorchs(p: float, eps: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rows = [[3, 4, 0], [0, 0, 0], [-3, 3, 3], [1e-13, 0, 0], [-1, 0.25, 0.5], [0, 3, 0], [1, -1, 0]]
    compare(
        F.normalize,
        F.normalize_backward,
        torch.nn.functional.normalize,
        [np.array(rows, float)],
        p=p,
        eps=eps,
    )
    compare(
        F.normalize,
        F.normalize_backward,
        torch.nn.functional.normalize,
        [normal(3, 4, 5)],
        p=p,
        dim=-1,
        eps=eps,
    )
    nowhere = np.array([[np.inf, 1, 0], [np.nan, 1, 0], [0, 0, -np.inf]])
    compare(F.normalize, F.normalize_backward, torch.nn.functional.normalize, [nowhere], p=p, eps=eps)
    x = np.array([[3.0, 0, 0]])  # the norm is eps
    compare(F.normalize, F.normalize_backward, torch.nn.functional.normalize, [x], eps=3.0)


def test_shuffling_there_and_back_changes_nothing() -> None:
    x = normal(2, 12, 3, 5)
    assert F.pixel_shuffle(x, 2).shape == (2, 3, 6, 10)
    np.testing.assert_array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), x)
    assert F.pixel_shuffle(x[:0], 2).shape == (0, 3, 6, 10)
    assert F.pixel_unshuffle(np.zeros((0, 3, 6, 10)), 2).shape == (0, 12, 3, 5)
