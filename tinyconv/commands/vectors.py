"""python -m tinyconv vectors: test vectors for a kernel, see tinyconv/vectors/.

Write the tensors of one operator (`vectors OPERATOR --help` says how), or a suite of small cases of all of
them (`vectors --suite DIR`).

In a suite, suite.json lists the cases, the mistakes that each of them catches and a checksum of each file;
vectors.json in a case's folder says what the files hold and how close a float32 kernel should be; and
suite.schema.json and case.schema.json describe the two. `python -m tinyconv compare` reads what a kernel
makes of them.
"""

import argparse
import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyconv.arguments import pair
from tinyconv.layers import Unfold
from tinyconv.vectors import OPERATORS, VALUES, Operator, signature, write_suite, write_vectors

HELP = "write an operator's tensors and gradients to files"
_OF_LOSSES = (
    "The weights are drawn, where an option asks for them; every fourth target is an `ignore_index` but -100."
)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --suite, and one command per operator."""
    parser.add_argument("--suite", metavar="DIR", type=Path, help="folder to write the suite to")
    operators = parser.add_subparsers(dest="operator", metavar="OPERATOR")
    for operator in OPERATORS:
        _add_operator(operators, operator)


def _add_operator(operators: Any, operator: str) -> None:
    """Add the operator's command, whose options are its attributes and the form of its input."""
    layer, form, size, target = OPERATORS[operator]
    doc = (inspect.getdoc(layer) or "").partition("\n\nRaises:")[0]
    doc += f"\n\n{_OF_LOSSES}" if target else ""
    summary = doc.partition("\n")[0].replace("%", "%%")
    parser = operators.add_parser(operator, help=summary, description=doc, formatter_class=_Formatter)
    for name, parameter in signature(operator).parameters.items():
        _add_attribute(parser, name, parameter.default)
    parser.add_argument("--batch", type=int, default=2, help="length of the input's first dimension")
    if "channels" in form.split():
        parser.add_argument("--channels", type=int, default=3, help="channels of the images")
    if "classes" in form.split():
        parser.add_argument("--classes", type=int, default=10, help="number of classes")
    if "size" in form.split():
        help = f"part of the input's shape, {form}" + "; one length stands for two" * (len(size) == 2)
        parser.add_argument("--size", nargs="*", type=int, default=size, metavar="LENGTH", help=help)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all tensors")
    values = "the input; large: 100 times, offset: + 1000"
    parser.add_argument("--values", choices=tuple(VALUES), default="normal", help=values)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write")
    parser.set_defaults(run=_run_operator, program=parser.prog)


def _add_attribute(parser: argparse.ArgumentParser, name: str, default: Any) -> None:
    kind: dict[str, Any] = {"type": _value, "nargs": "+", "metavar": "VALUE"}
    if isinstance(default, bool):
        kind = {"action": argparse.BooleanOptionalAction}
    elif isinstance(default, str):
        kind = {"metavar": "NAME"}
    required = default is inspect.Parameter.empty
    default = argparse.SUPPRESS if required else default
    help = "required; see above" if required else "see above"
    parser.add_argument(f"--{name.replace('_', '-')}", required=required, default=default, help=help, **kind)


def _value(text: str) -> Any:
    """None, an integer or a number if `text` looks like one, else `text` itself."""
    if text.lower() == "none":
        return None
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def run(args: argparse.Namespace) -> None:
    """Write the suite; print the path of its index."""
    if args.suite is None:
        raise ValueError(f"give an OPERATOR or --suite DIR; operators are {', '.join(OPERATORS)}")
    print(write_suite(args.suite))


def _run_operator(args: argparse.Namespace) -> None:
    """Write the vectors that `args` ask for; print the path of their description."""
    if args.suite is not None:
        raise ValueError(f"--suite is of all operators: leave out {args.operator}, or --suite")
    attributes = {name: _one_or_many(getattr(args, name)) for name in signature(args.operator).parameters}
    shape = _input_shape(OPERATORS[args.operator], {**vars(args), **attributes})
    if args.operator == "fold":
        window = {name: value for name, value in attributes.items() if name != "output_size"}
        shape = Unfold(**window).output_shape(shape)
    print(write_vectors(args.operator, attributes, shape, args.out, args.seed, args.dtype, args.values))


def _one_or_many(value: Any) -> Any:
    """What was given to an option as the layers take it."""
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def _input_shape(operator: Operator, values: dict[str, Any]) -> tuple[int, ...]:
    """The lengths that the words of the operator's form stand for."""
    shape: list[int] = []
    for word in operator.form.split():
        value = values[word]
        if word == "output_size" or (word == "size" and len(value) == 1 and len(operator.size) == 2):
            value = pair(word, value)
        shape += value if isinstance(value, (tuple, list)) else [value]
    return tuple(shape)
