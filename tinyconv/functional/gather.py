"""Reading positions along an axis by index, and adding gradients up where values were read."""

import functools

from tinyconv.arrays import Array, array_module, as_logical, as_stored, constant, storage_axes, zeros_stored


def gather(x: Array, indices: list[int], axis: int) -> Array:
    """Return an array whose position i along `axis` is `indices[i]` of `x`, in the memory format."""
    xp, place = array_module(x), storage_axes(x.ndim).index(axis)
    return as_logical(xp.take(as_stored(x), constant(tuple(indices), "int64", xp), axis=place))


def gather_backward(grad_output: Array, indices: list[int], axis: int, length: int) -> Array:
    """Compute the gradient of `gather` with respect to its input, whose `axis` has `length`."""
    xp = array_module(grad_output)
    shape = *grad_output.shape[:axis], length, *grad_output.shape[axis + 1 :]
    grad_input = zeros_stored(shape, like=grad_output)
    total, grads = xp.moveaxis(grad_input, axis, 0), xp.moveaxis(grad_output, axis, 0)
    for positions, sources in _rounds(tuple(indices)):
        total[constant(sources, "int64", xp)] += grads[constant(positions, "int64", xp)]
    return grad_input


@functools.cache
def _rounds(indices: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The (positions, indices) in rounds without repeated indices, as `+=` adds only one of equal ones."""
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
