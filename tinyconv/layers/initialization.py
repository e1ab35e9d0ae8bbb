"""Initial values of parameters."""

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import floating_dtype
from tinyconv.arrays import Array


def fan_in_uniform(
    shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike, generator: "np.random.Generator"
) -> Array:
    """Draw from +-1 / sqrt(fan_in) uniformly, as PyTorch does weights (Kaiming, a = sqrt 5) and biases.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """
    bound = fan_in**-0.5
    return generator.uniform(-bound, bound, shape).astype(floating_dtype(dtype))
