"""The diagnosis of a kernel's tensor that differs, which is given all that the case knows."""

import inspect
import re
from typing import Any

import tinyconv.functional as F
from tinyconv.arrays import Array
from tinyconv.gradients.diagnose import diagnose
from tinyconv.vectors.operators import as_arguments
from tinyconv.vectors.write import Case

_FUNCTIONS = {"batch_norm1d": "batch_norm", "batch_norm2d": "batch_norm"}


def diagnosed(name: str, got: Array, want: Array, case: Case) -> tuple[str, tuple[Any, ...]]:
    """What `diagnose` says of `got`, and the mistakes that it names."""
    got, want = (array.astype(array.dtype.newbyteorder("=")) for array in (got, want))
    try:
        found = diagnose(got, want, **_known(name, case))
    except (ValueError, TypeError):  # an operator or an attribute that it does not know
        found = diagnose(got, want)
    if found.agrees:
        return "No mistake: it is only less precise than the tolerances allow.", ()
    return re.sub(r"\bgot\b", name, str(found)), tuple(found.mistakes)


def _known(name: str, case: Case) -> dict[str, Any]:
    """The function, what the tensor is the gradient with respect to, and the function's arguments."""
    operator = case.description["operator"]
    function = _FUNCTIONS.get(operator, operator)
    names = {"prediction": "input", "grad_loss": "grad_output"}
    arrays = {names.get(own, own): array for own, array in case.arrays.items()}
    attributes = as_arguments(case.description["attributes"])
    for own in ("weight", "bias"):  # they say whether there is such an array
        attributes.pop(own, None)
    if attributes.get("padding_mode", "zeros") != "zeros":
        raise ValueError("the function has no padding_mode")
    given = attributes | {"training": True} | arrays
    parameters = {*inspect.signature(getattr(F, function)).parameters, "grad_output"}
    arguments = {own: value for own, value in given.items() if own in parameters}
    wrt = "output" if name in ("output", "loss") else name.removeprefix("grad_")
    return {"operator": function, "wrt": names.get(wrt, wrt), **arguments}
