"""python -m tinyconv compare: a kernel's outputs beside a case or a suite of `vectors`.

Compare a kernel's outputs with a case that `vectors` has written.

MINE has the tensors that the kernel computes (output, grad_input, grad_weight, ...; see vectors.json), as
many as it computes: NAME.bin with raw little-endian values in C order, of the dtype and shape of the case,
or NAME.npy, or arrays NAME in .npz files. Tensors that are missing are not compared.

A tensor agrees where |mine - case| <= atol + rtol * |case|. The tolerances are the case's own, which a
float32 kernel should meet whatever its order of summation; one that multiplies in float16, bfloat16 or TF32
needs others.

CASE_DIR may be the folder of a suite (vectors --suite): MINE then has a folder OPERATOR/NAME, or a file
OPERATOR/NAME.npz, for each case that the kernel computes.

exit code: 0 if all that was compared agrees, 1 if something differs or nothing was there to compare, 2 for
wrong arguments and files that cannot be read.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyconv.vectors.cases import FLAGS
from tinyconv.vectors.compare import Comparison, as_json, compare, compare_suite, dumped, overall

HELP = "tell what is wrong with a kernel's outputs"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("case", metavar="CASE_DIR", type=Path, help="folder of a case, or of a suite")
    parser.add_argument("mine", metavar="MINE", type=Path, help="the outputs: a folder or an .npz file")
    tensor = "compare this tensor alone"
    parser.add_argument("--tensor", metavar="NAME", action="append", default=[], help=tensor)
    parser.add_argument("--rtol", type=float, help="instead of the case's tolerance")
    parser.add_argument("--atol", type=float, help="instead of the case's tolerance")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the verdicts; returns the exit code."""
    options = (args.case, args.mine, args.tensor, args.rtol, args.atol)
    if (args.case / "suite.json").exists():
        found = compare_suite(*options)
        print(dumped(_suite_as_json(found)) if args.json else _suite_as_text(found))
        status = overall(comparison.status for comparison in found)
    else:
        comparison = compare(*options)
        print(dumped(as_json(comparison)) if args.json else _as_text(comparison))
        status = comparison.status
    return 0 if status == "agrees" else 1


def _as_text(comparison: Comparison) -> str:
    width = max(len(verdict.name) for verdict in comparison.verdicts)
    lines = [f"{verdict.name:{width}}  {verdict.sentence}" for verdict in comparison.verdicts]
    lines.append(_counted([verdict.status for verdict in comparison.verdicts], "tensors"))
    if comparison.status == "differs":
        lines += [f"    {flag}: {FLAGS.get(flag, '')}" for flag in comparison.flags]
    return "\n".join(lines)


def _suite_as_text(found: Sequence[Comparison]) -> str:
    """One line per case, the verdicts on what differs, and the flags of those cases."""
    width = max(len(comparison.path) for comparison in found)
    lines = []
    for comparison in found:
        lines.append(f"{comparison.path:{width}}  {_summary(comparison)}")
        lines += [f"    {v.name}: {v.sentence}" for v in comparison.verdicts if v.status == "differs"]
    lines.append(_counted([comparison.status for comparison in found], "cases"))
    failing = {flag: counts for flag, counts in _flags(found).items() if counts[0]}
    if failing:
        lines.append("Flags of the cases that differ:")
    for flag, (failed, compared) in failing.items():
        lines.append(f"    {flag} ({failed} of {compared} compared): {FLAGS.get(flag, '')}")
    return "\n".join(lines)


def _summary(comparison: Comparison) -> str:
    if comparison.status == "missing":
        return "not compared"
    compared = len(comparison.names("agrees")) + len(comparison.names("differs"))
    of = f"{compared} of {len(comparison.verdicts)} tensors compared"
    if differing := comparison.names("differs"):
        return f"DIFFERS in {', '.join(differing)} ({of})"
    return "agrees" if compared == len(comparison.verdicts) else f"agrees ({of})"


def _counted(statuses: Sequence[str], what: str) -> str:
    counts = Counter(statuses)
    differ = "differs" if counts["differs"] == 1 else "differ"
    said = f"{counts['agrees']} of {len(statuses)} {what} agree"
    said += f", {counts['differs']} {differ}" * bool(counts["differs"])
    return said + f", {counts['missing']} not compared" * bool(counts["missing"])


def _flags(found: Sequence[Comparison]) -> dict[str, tuple[int, int]]:
    """Flag -> how many of its cases differ, and how many were compared; most failures first."""
    failed, compared = Counter[str](), Counter[str]()
    for comparison in found:
        if comparison.status != "missing":
            compared.update(comparison.flags)
            failed.update(comparison.flags if comparison.status == "differs" else ())
    order = sorted(compared, key=lambda flag: (-failed[flag] / compared[flag], flag))
    return {flag: (failed[flag], compared[flag]) for flag in order}


def _suite_as_json(found: Sequence[Comparison]) -> dict[str, Any]:
    flags = _flags(found)
    return {
        "status": overall(comparison.status for comparison in found),
        "cases": [as_json(comparison) for comparison in found],
        "flags": {flag: {"differ": failed, "compared": all} for flag, (failed, all) in flags.items()},
    }
