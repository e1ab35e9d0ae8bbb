"""What layers and losses keep from one pass to the next, and passes that do not modify them."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, Self

import numpy as np

from tinyconv.arguments import check_kinds
from tinyconv.arrays import Array, array_module


class Pass:
    """A pass that does not modify layers and losses, for any number of threads at once.

    Within `with Pass(...)`, what forward, jvp and backward would keep in layers and losses is kept here, and
    gradients of parameters are not added. A pass can be entered again, and then continues: a jvp may follow a
    backward, and a backward_jvp then is the tangent of that backward.

    Args:
        keeps: whether forward keeps what backward needs. A backward does not release it.
        evaluates: whether layers are in evaluation mode, whatever their own mode is. So they are in a pass
            within one that evaluates.

    Attributes:
        caches: id of a layer or loss -> what it keeps; None if nothing is kept.
        grads_dot: id of a layer -> the tangents of its gradients, by name.
    """

    def __init__(self, *, keeps: bool, evaluates: bool = False) -> None:
        self.evaluates = evaluates
        self.caches: dict[int, _Cache] | None = {} if keeps else None
        self.grads_dot: dict[int, dict[str, Array]] = {}

    def __enter__(self) -> Self:
        outer = current_pass()
        self.evaluates = self.evaluates or (outer is not None and outer.evaluates)
        self._token: Token[Pass | None] = _current.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)


_current: ContextVar[Pass | None] = ContextVar("pass", default=None)
current_pass = _current.get  # the pass that this thread is in, or None


def keeping_pass() -> Pass | None:
    """Return the pass that this thread is in, if it keeps what backward needs; else None."""
    current = current_pass()
    return current if current is not None and current.caches is not None else None


class ForwardCache:
    """Carry values from forward to backward, and tangents from jvp to backward_jvp.

    A backward releases what forward kept, unless a jvp was called between them: then backward_jvp does. A
    copy or a pickle has none of it.
    """

    _own_caches: "dict[int, _Cache]"

    def __init__(self) -> None:
        # As in a Pass, and with one entry at most. (Layer.__setattr__ would be slow.)
        vars(self)["_own_caches"] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own_caches": {}}

    def save(self, output: Array, *values: Any) -> Array:
        """Keep `values` for `saved`, unless in `predict`, and return `output`."""
        caches = self._caches()
        if caches is not None:
            caches[id(self)] = _Cache(output, values)
        return output

    def saved(self, grad_output: Array) -> tuple[Any, ...]:
        """Return, once, the values that `save` kept, after checking that `grad_output` fits the output.

        Raises:
            RuntimeError: there was no forward, or a backward has used it already.
            ValueError, TypeError: `grad_output` does not have the shape, dtype or device of the output.
        """
        cache = self._cache("backward")
        cache.check("grad_output", grad_output)
        if cache.tangents is not None or current_pass() is not None:  # a Pass keeps all for another one
            cache.grad_output = grad_output
        else:
            self._own_caches.clear()
        return cache.values

    def kept(self) -> tuple[Any, ...]:
        """Return the values that `save` kept, for a jvp, without releasing them.

        Raises:
            RuntimeError: there was no forward, or a backward has used it already.
        """
        return self._cache("jvp").values

    def save_tangents(self, output_dot: Array, *tangents: Any) -> Array:
        """Keep `tangents` for `saved_tangents`, and return `output_dot`.

        Raises:
            ValueError, TypeError: `output_dot` does not have the shape or dtype of the output, as jvp's
                arguments do not fit the input.
        """
        cache = self._cache("jvp")
        cache.check("the tangent of the output", output_dot)
        cache.tangents = tangents
        if current_pass() is None:
            cache.grad_output = None
        return output_dot

    def _shared_tangents(self, params_dot: Mapping[str, Array]) -> Mapping[str, Array]:
        """Keep the tangents of parameters for a layer that shares them; return those for this layer."""
        origin: ForwardCache | None = vars(self).get("_origin")
        if origin is None:
            cache = self._found()
            if cache is not None:
                cache.params_dot = params_dot
            return params_dot
        cache = origin._found()
        if cache is None or cache.params_dot is None:
            raise RuntimeError("forward and jvp must reach a layer before those that share it")
        return cache.params_dot

    def saved_tangents(self, grad_output_dot: Array) -> tuple[tuple[Any, ...], tuple[Any, ...], Array]:
        """Return, once, what `save` and `save_tangents` kept, and the argument of backward.

        Raises:
            RuntimeError: there was no forward, jvp and backward, in this order.
            ValueError, TypeError: `grad_output_dot` does not have the shape, dtype or device of the output.
        """
        cache = self._found()
        if cache is None or cache.tangents is None or cache.grad_output is None:
            raise RuntimeError("backward_jvp needs a forward, a jvp and a backward before it, in this order")
        cache.check("grad_output_dot", grad_output_dot)
        values, tangents, grad_output = cache.values, cache.tangents, cache.grad_output
        cache.tangents = None
        if current_pass() is None:
            self._own_caches.clear()
        return values, tangents, grad_output

    def full(self, value: float) -> Array:
        """Return an array of the shape and dtype of the last forward's output, filled with `value`."""
        cache = self._cache("backward")
        array: Array = cache.xp.full(cache.shape, value, cache.dtype)
        return array

    def release(self) -> None:
        """Forget what forward kept for backward."""
        self._own_caches.clear()

    def _convert(self, convert: Callable[[Array], Array]) -> None:
        """Convert the arrays of this object."""

    def _caches(self) -> "dict[int, _Cache] | None":
        """Where this thread's pass keeps what backward needs; None if it keeps nothing, as `predict`."""
        current = current_pass()
        return self._own_caches if current is None else current.caches

    def _found(self) -> "_Cache | None":
        """What this thread's pass has kept here."""
        return (self._caches() or {}).get(id(self))

    def _cache(self, caller: str) -> "_Cache":
        cache = self._found()
        if cache is None:
            raise RuntimeError(
                f"{caller} needs a forward before it, and one forward serves one backward only"
            )
        return cache


class _Cache:
    def __init__(self, output: Array, values: tuple[Any, ...]) -> None:
        self.xp, self.shape, self.dtype = array_module(output), output.shape, output.dtype
        self.values = values
        self.tangents: tuple[Any, ...] | None = None
        self.grad_output: Array | None = None
        self.params_dot: Mapping[str, Array] | None = None

    def check(self, name: str, array: Array) -> None:
        """Check that `array` has the shape, dtype and device of the output."""
        xp = np if type(array) is np.ndarray else check_kinds(**{name: array})
        is_on_device = xp is self.xp
        if is_on_device and array.shape == self.shape and array.dtype == self.dtype:
            return
        name = name if " " in name else f"`{name}`"
        if not is_on_device:
            raise TypeError(f"{name} must be a {self.xp.__name__} array, as the output is")
        if array.shape != self.shape:
            raise ValueError(f"{name} (of shape {array.shape}) must have the output's shape {self.shape}")
        if array.dtype != self.dtype:
            raise TypeError(f"{name} (of dtype {array.dtype}) must have the output's dtype {self.dtype}")
