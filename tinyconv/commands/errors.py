"""Wrong arguments and files end a program with one line and exit code 2."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, FloatingPointError, MemoryError)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print `message` with the program's name, and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def exit_code(program: str, function: Callable[[], int | None]) -> int:
    """Call `function`; returns its exit code (0 for None), or 2 after printing its error in one line."""
    try:
        return function() or 0
    except ERRORS as error:
        message = " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        print(f"{program}: error: {message}", file=sys.stderr)
        return 2
