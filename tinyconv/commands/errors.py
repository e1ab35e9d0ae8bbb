"""Wrong arguments and files end a program with one line and exit code 2, Ctrl-C with 130."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, FloatingPointError, MemoryError)
INTERRUPTED = 130  # as shells have it


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print `message` with the program's name, and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def exit_code(program: str, function: Callable[[], int | None]) -> int:
    """Call `function`; returns its exit code (0 for None), or 2 after printing its error in one line.

    That nobody reads any more what is printed, as in `... | head -1`, is not an error.
    """
    try:
        return function() or 0
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ERRORS as error:
        message = " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        print(f"{program}: error: {message}", file=sys.stderr)
        return 2
    finally:
        flush_output()


def flush_output() -> None:
    """Flush stdout; where its reader is gone, what is left to print is dropped."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in ((errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
