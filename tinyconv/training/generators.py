"""The random generators that layers draw from: finding them, their states, and new streams for them."""

import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any, TypeAlias, Union

import numpy as np

from tinyconv.layers import Layer
from tinyconv.layers.attributes import contents

RandomSource: TypeAlias = Union["np.random.Generator", "np.random.RandomState", random.Random]


def generators(layer: Layer) -> dict[str, RandomSource]:
    """Return the random generators that `layer` itself has, by place: "generator", "noise[0]".

    They are numpy Generators, RandomStates and Python's `random.Random`, in attributes and in lists, tuples
    and dicts there. What a layer draws from elsewhere (a closure, another object's attribute) cannot be seen.
    """
    return {
        place: one
        for name, value in vars(layer).items()
        for place, one in contents(name, value, (list, tuple, dict))
        if isinstance(one, (np.random.Generator, np.random.RandomState, random.Random))
        and not isinstance(one, random.SystemRandom)  # it has no state
    }


def global_generators() -> dict[str, RandomSource]:
    """Return the generators behind the functions of `np.random` and `random`."""
    return {"np.random": np.random.mtrand._rand, "random": random._inst}


def state_of(source: RandomSource) -> Any:
    """Return the state, which JSON can represent except for arrays."""
    if isinstance(source, np.random.Generator):
        return source.bit_generator.state
    return source.getstate() if isinstance(source, random.Random) else source.get_state(legacy=False)


def set_state(source: RandomSource, state: Any) -> None:
    """Set the state of `source` to what `state_of` returned, also after a round trip through JSON.

    Raises:
        ValueError, TypeError: a state of another kind of generator.
    """
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = state
    elif isinstance(source, random.Random):
        version, numbers, gauss = state
        source.setstate((version, tuple(numbers), gauss))
    else:
        source.set_state(state)


def random_states(model: Layer, batches: Any) -> dict[str, Any]:
    """Return the states of the generators of model and data, of `np.random` and of `random`, by name."""
    return {name: state_of(own) for name, own in _by_name(model, batches).items()}


def set_random_states(model: Layer, batches: Any, states: Mapping[str, Any]) -> None:
    """Set the generators to what `random_states` returned.

    Raises:
        ValueError: there are other generators, or generators of another kind.
    """
    found = _by_name(model, batches)
    if found.keys() != states.keys():
        raise ValueError(
            f"the checkpoint has random numbers for {sorted(states)}, and this run for {sorted(found)}"
        )
    for name, source in found.items():
        set_state(source, states[name])


def model_generators(model: Layer) -> dict[str, RandomSource]:
    """Return the generators of all layers of `model`, by name; layers may share one."""
    return {
        f"layer {index}, {key}": generator
        for index, layer in enumerate(model.modules())
        for key, generator in generators(layer).items()
    }


def _by_name(model: Layer, batches: Any) -> dict[str, RandomSource]:
    found = global_generators() | model_generators(model)
    own = getattr(batches, "generator", None)
    return {**found, "batches": own} if isinstance(own, np.random.Generator) else found


class OwnStreams:
    """Random numbers of its own for each rank but the first, which draws as it would alone.

    Before each batch the generators of the layers, and those of `np.random` and `random`, are set to a stream
    that is determined by their state at the beginning of the epoch, the epoch, the batch and the rank. So a
    resumed run does not need their states.
    """

    def __init__(self, model: Layer, rank: int) -> None:
        self._rank = rank
        found = _by_name(model, None) if rank else {}
        unique = {id(own): own for own in found.values()}
        self._streams = [(own, digest(own)) for own in unique.values()]

    def begin(self, epoch: int, batch: int) -> None:
        """Set the generators to the streams for a batch."""
        for source, own in self._streams:
            reseed(source, own, epoch, batch, self._rank)


def digest(source: RandomSource) -> int:
    """Return a number that depends on the state of `source`, without changing it."""
    text = json.dumps(state_of(source), default=lambda array: array.tolist())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])


def reseed(source: RandomSource, *entropy: int) -> None:
    """Set `source`, in place, to the beginning of the stream that belongs to `entropy`."""
    # A hash and 32 bits for np.random: a SeedSequence, or all bits, would take several times as long.
    seed = int.from_bytes(hashlib.blake2b(repr(entropy).encode(), digest_size=32).digest())
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = type(source.bit_generator)(seed).state
    elif isinstance(source, random.Random):
        source.seed(seed)
    elif isinstance(source._bit_generator, np.random.MT19937):
        source.seed(seed % (1 << 32))
    else:
        source.set_state(dict(type(source._bit_generator)(seed).state))
