"""Reading positions along an axis, by indices, and adding gradients up where they were read."""

import functools

from tinyconv.arrays import Array, array_module, batch_first, batch_last, constant


def gather(x: Array, indices: list[int], axis: int) -> Array:
    """`x` with position `indices[i]` along `axis` in place i; lies batch last."""
    xp = array_module(x)
    return batch_first(xp.take(batch_last(x), constant(tuple(indices), "int64", xp), axis=axis - 1))


def gather_backward(grad_output: Array, indices: list[int], axis: int, length: int) -> Array:
    """Gradient of `gather` by its input, whose `axis` has `length`."""
    xp = array_module(grad_output)
    grads = xp.moveaxis(batch_last(grad_output), axis - 1, 0)
    total = xp.zeros((length, *grads.shape[1:]), grads.dtype)
    for positions, sources in _rounds(tuple(indices)):
        total[constant(sources, "int64", xp)] += grads[constant(positions, "int64", xp)]
    return batch_first(xp.moveaxis(total, 0, axis - 1))


@functools.cache
def _rounds(indices: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The (positions, indices) in rounds that hold no index twice, as `+=` adds only one of equal ones."""
    rounds: list[tuple[list[int], list[int]]] = []
    times: dict[int, int] = {}
    for position, index in enumerate(indices):
        earlier = times.get(index, 0)
        times[index] = earlier + 1
        if earlier == len(rounds):
            rounds.append(([], []))
        rounds[earlier][0].append(position)
        rounds[earlier][1].append(index)
    return [(tuple(positions), tuple(sources)) for positions, sources in rounds]
