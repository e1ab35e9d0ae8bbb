"""The commands of `python -m tinyconv`, or `tinyconv` for short.

    python -m tinyconv train                               train a network on MNIST
    python -m tinyconv evaluate --weights FILE             its loss, accuracy and errors
    python -m tinyconv predict IMAGE ...                   the digits in pictures
    python -m tinyconv draw                                a page to draw on, and to see a network compute
    python -m tinyconv summary                             a network's layers
    python -m tinyconv vectors OPERATOR ... --out DIR      test vectors for a kernel
    python -m tinyconv vectors --suite DIR                 a suite of them, of all operators
    python -m tinyconv compare CASE_DIR MINE               what is wrong with a kernel's outputs

Wrong arguments and files end a command with one line and exit code 2.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyconv import __version__
from tinyconv.commands import compare, draw, evaluate, predict, summary, train, vectors
from tinyconv.commands.errors import Parser, exit_code, flush_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's arguments); returns the exit code."""
    prog = "tinyconv" if Path(sys.argv[0]).stem == "tinyconv" else "python -m tinyconv"
    parser = Parser(prog=prog, description="tinyconv's commands")
    parser.add_argument("--version", action="version", version=f"tinyconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, evaluate, predict, draw, summary, vectors, compare):
        _add(command, commands)
    try:
        args = parser.parse_args(argv)
    except SystemExit:
        flush_output()  # after --help or --version
        raise
    return exit_code(args.program, partial(args.run, args))


def _add(command: ModuleType, commands: Any) -> None:
    """Add the command that has the module's name."""
    parser = commands.add_parser(
        command.__name__.rpartition(".")[2],
        help=command.HELP,
        description=(command.__doc__ or "").partition("\n\n")[2] or None,
        formatter_class=RawDescriptionHelpFormatter,
    )
    command.add_options(parser)
    parser.set_defaults(run=command.run, program=parser.prog)


if __name__ == "__main__":
    sys.exit(main())
