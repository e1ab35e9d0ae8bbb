"""What a raw file of the wrong size may be."""

import math
from collections.abc import Iterator

import numpy as np

from tinyconv.arrays import Array
from tinyconv.vectors.closeness import close
from tinyconv.vectors.operators import OPERATORS, as_arguments
from tinyconv.vectors.write import COMPUTED, Case


def wrong_size(raw: bytes, name: str, case: Case, rtol: float, atol: float) -> str:
    """Say how much is in the file of the tensor `name`, how much should be, and what it may be."""
    want = case.arrays[name]
    count, rest = divmod(len(raw), want.itemsize)
    holds = f"{count:,} {want.dtype.name} values" + f" and a rest of {rest}" * bool(rest)
    said = f"has {len(raw):,} bytes, {holds}, and not {want.nbytes:,} bytes, {want.size:,} values"
    said += f" of shape {want.shape}"
    dtypes = _dtypes(raw, want)
    if agreeing := [dtype for dtype in dtypes if _agrees(raw, dtype, want, rtol, atol)]:
        return f"{said}. Read as {np.dtype(agreeing[0]).name} it agrees: write {want.dtype.name} values"
    guesses = [] if rest else [*_other_shapes(count, name, case)]
    if dtypes:
        guesses.append(
            "float16 or bfloat16 values" if dtypes == ("<f2",) else f"{np.dtype(dtypes[0])} values"
        )
    return f"{said}: as many as {', or '.join(guesses)}" if guesses else said


def _dtypes(raw: bytes, want: Array) -> tuple[str, ...]:
    """Dtypes of which the file has the right number of values."""
    width = len(raw) // want.size if want.size and len(raw) % want.size == 0 else 0
    return {2: ("<f2",), 4: ("<f4", "<i4"), 8: ("<f8", "<i8")}.get(width, ())


def _agrees(raw: bytes, dtype: str, want: Array, rtol: float, atol: float) -> bool:
    """Whether the file agrees if it holds values of that dtype."""
    if dtype == "<f2":
        atol = max(atol, float(np.finfo(np.float16).eps) * float(np.abs(want).max()))
    return bool(close(np.frombuffer(raw, dtype).reshape(want.shape), want, rtol, atol).all())


def _other_shapes(count: int, name: str, case: Case) -> Iterator[str]:
    """Entries of the batch, other attributes, and other tensors that have `count` values."""
    want = case.arrays[name]
    batch = want.shape[0] if want.ndim else 0
    if name in ("output", "grad_input", "grad_prediction") and batch > 1 and count * batch == want.size:
        yield f"one entry of the batch of {batch}"
    if name == "output":
        yield from _other_attributes(count, case)
    computed = [t["name"] for t in case.description["tensors"] if t["role"] in COMPUTED]
    if same := [other for other in computed if case.arrays[other].size == count]:
        yield " or ".join(same)


def _other_attributes(count: int, case: Case) -> Iterator[str]:
    """Attributes with which the output would have `count` values."""
    attributes = as_arguments(case.description["attributes"])
    changes = {"padding": 0, "output_padding": 0, "stride": 1, "dilation": 1}
    changes["ceil_mode"] = not attributes.get("ceil_mode")
    for name, value in changes.items():
        if name not in attributes:
            continue
        try:
            layer = OPERATORS[case.description["operator"]].layer(**{**attributes, name: value})
            if math.prod(layer.output_shape(case.arrays["input"].shape)) == count:
                yield f"with {name}={value}"
        except ValueError:  # attributes that do not go together
            continue
