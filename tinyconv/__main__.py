"""The commands of `python -m tinyconv`.

    python -m tinyconv train                               train a network on MNIST
    python -m tinyconv evaluate --weights FILE             its loss, accuracy and errors
    python -m tinyconv predict IMAGE ...                   the digits in pictures
    python -m tinyconv summary                             a network's layers
    python -m tinyconv vectors OPERATOR ... --out DIR      test vectors for a kernel
    python -m tinyconv vectors --suite DIR                 a suite of them, of all operators
    python -m tinyconv compare CASE_DIR MINE               what is wrong with a kernel's outputs

Wrong arguments and files end a command with one line and exit code 2.
"""

import sys
from collections.abc import Sequence
from functools import partial

from tinyconv.commands import compare, evaluate, predict, summary, train, vectors
from tinyconv.commands.errors import Parser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's arguments); returns the exit code."""
    parser = Parser(prog="python -m tinyconv", description="tinyconv's commands")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, evaluate, predict, summary, vectors, compare):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    return exit_code(args.program, partial(args.run, args))


if __name__ == "__main__":
    sys.exit(main())
