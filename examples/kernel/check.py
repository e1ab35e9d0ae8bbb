"""Write a case, compile conv2d.c, run it and say what is wrong with it: the right one, and five wrong ones.

Run it: python examples/kernel/check.py (it needs a C compiler: $CC, cc, gcc or clang)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tinyconv.vectors import Comparison, compare, write_vectors

SOURCE = Path(__file__).with_name("conv2d.c")
# A case that tells the mistakes apart: a kernel with two lengths, strides that leave columns unread, padding,
# and as many output channels as input channels, so that exchanging them stays inside the weight.
ATTRIBUTES = {"in_channels": 4, "out_channels": 4, "kernel_size": (3, 2), "stride": (2, 3), "padding": (2, 1)}
INPUT_SHAPE = (5, 4, 9, 10)
GROUPED = {**ATTRIBUTES, "groups": 2, "dilation": (1, 2)}
MISTAKES = {
    1: "the kernel is rotated by 180 degrees",
    2: "input and output channels of the weight are exchanged",
    3: "the padding is one less",
    4: "a mean over the batch, not a sum",
    5: "the stride is ignored in the gradient with respect to the input",
}


def compiler() -> str | None:
    """Return the C compiler's path, or None where there is none."""
    found = map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))
    return next(filter(None, found), None)


def compiled(cc: str, folder: Path, mistake: int = 0) -> Path:
    """Compile conv2d.c, with one of its mistakes; returns the program."""
    program = folder / f"conv2d_{mistake}{'.exe' if os.name == 'nt' else ''}"
    options = ("-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", f"-DMISTAKE={mistake}")
    subprocess.run([cc, *options, str(SOURCE), "-o", str(program)], check=True)
    return program


def numbers(case: Path) -> list[str]:
    """The shape and attributes of a case as conv2d's arguments."""
    description: dict[str, Any] = json.loads((case / "vectors.json").read_bytes())
    attributes = description["attributes"]
    shape = next(tensor["shape"] for tensor in description["tensors"] if tensor["name"] == "input")
    pairs = [attributes[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    found = [*shape, attributes["out_channels"], *(length for pair in pairs for length in pair)]
    return [str(number) for number in (*found, attributes["groups"])]


def judged(program: Path, case: Path, out: Path) -> Comparison:
    """Run the program on a case and compare what it writes with the case."""
    out.mkdir(exist_ok=True)
    subprocess.run([str(program), str(case), str(out), *numbers(case)], check=True)
    return compare(case, out)


def main() -> int:
    """Print the verdicts; returns 0 if the right kernel agrees and a mistake is named for each wrong one."""
    cc = compiler()
    if cc is None:
        print("There is no C compiler: set CC, or install cc, gcc or clang.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder, as_expected = Path(name), True
        for title, attributes in (("conv2d", ATTRIBUTES), ("conv2d with groups and dilation", GROUPED)):
            case = folder / title
            write_vectors("conv2d", attributes, INPUT_SHAPE, case)
            found = judged(compiled(cc, folder), case, folder / "right")
            print(f"{title}: the right kernel")
            for verdict in found.verdicts:
                print(f"  {verdict.name}: {verdict.sentence}")
            as_expected &= found.names("agrees") == [verdict.name for verdict in found.verdicts]
        for mistake, what in MISTAKES.items():
            found = judged(compiled(cc, folder, mistake), folder / "conv2d", folder / f"wrong_{mistake}")
            print(f"\nmistake {mistake}: {what}")
            for verdict in found.verdicts:
                if verdict.status == "differs":
                    print(f"  {verdict.name}: {verdict.sentence}")
                    as_expected &= bool(verdict.mistakes)
            as_expected &= found.status == "differs"
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
