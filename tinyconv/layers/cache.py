"""What layers and losses keep from one pass to the next."""

from typing import Any

from tinyconv.arrays import Array, array_module


class ForwardCache:
    """Carries values from a forward to its one backward, and tangents from a jvp to its backward_jvp.

    A backward releases what forward kept, unless a jvp came between them: then backward_jvp does.
    """

    def __init__(self) -> None:
        self._keeps_caches = True
        self._retains_cache = False
        self._cache: _Cache | None = None

    def save(self, output: Array, *values: Any) -> Array:
        """Keep `values` for `saved`, and return `output`; `predict` keeps nothing."""
        if self._keeps_caches:
            self._cache = _Cache(output, values)
        return output

    def saved(self, grad_output: Array) -> tuple[Any, ...]:
        """The values that `save` kept, once, after checking that `grad_output` fits the output.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` has not the shape, dtype or device of the output.
        """
        cache = self._kept("backward")
        cache.check("grad_output", grad_output)
        if cache.tangents is not None:
            cache.grad_output = grad_output
        elif not self._retains_cache:
            self._cache = None
        return cache.values

    def kept(self) -> tuple[Any, ...]:
        """The values that `save` kept, for a jvp, which leaves them there.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
        """
        return self._kept("jvp").values

    def save_tangents(self, output_dot: Array, *tangents: Any) -> Array:
        """Keep `tangents` for `saved_tangents`, and return `output_dot`.

        Raises:
            ValueError, TypeError: `output_dot` has not the shape or dtype of the output, as what was
                given to jvp does not fit the input.
        """
        cache = self._kept("jvp")
        cache.check("the tangent of the output", output_dot)
        cache.tangents, cache.grad_output = tangents, None
        return output_dot

    def saved_tangents(self, grad_output_dot: Array) -> tuple[tuple[Any, ...], tuple[Any, ...], Array]:
        """What `save` and `save_tangents` kept, and the gradient that backward was given; once.

        Raises:
            RuntimeError: not a forward, a jvp and a backward before it.
            ValueError, TypeError: `grad_output_dot` has not the shape, dtype or device of the output.
        """
        cache = self._cache
        if cache is None or cache.tangents is None or cache.grad_output is None:
            raise RuntimeError("backward_jvp needs a forward, a jvp and a backward before it, in this order")
        cache.check("grad_output_dot", grad_output_dot)
        self._cache = None
        return cache.values, cache.tangents, cache.grad_output

    def full(self, value: float) -> Array:
        """An array of the form of the last forward's output, with `value` in all places."""
        cache = self._kept("backward")
        array: Array = cache.xp.full(cache.shape, value, cache.dtype)
        return array

    def _kept(self, caller: str) -> "_Cache":
        if self._cache is None:
            raise RuntimeError(
                f"{caller} needs a forward before it, and one forward serves one backward only"
            )
        return self._cache


class _Cache:
    def __init__(self, output: Array, values: tuple[Any, ...]) -> None:
        self.xp, self.shape, self.dtype = array_module(output), output.shape, output.dtype
        self.values = values
        self.tangents: tuple[Any, ...] | None = None
        self.grad_output: Array | None = None

    def check(self, name: str, array: Array) -> None:
        """Check that `array` has the form of the output."""
        is_on_device = array_module(array) is self.xp
        if is_on_device and array.shape == self.shape and array.dtype == self.dtype:
            return
        name = name if " " in name else f"`{name}`"
        if not is_on_device:
            raise TypeError(f"{name} must be a {self.xp.__name__} array, as the output is")
        if array.shape != self.shape:
            raise ValueError(f"{name} (of shape {array.shape}) must have the output's shape {self.shape}")
        if array.dtype != self.dtype:
            raise TypeError(f"{name} (of dtype {array.dtype}) must have the output's dtype {self.dtype}")
