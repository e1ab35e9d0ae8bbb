"""The commands of `python -m tinyconv`, one file each.

Each has `add_parser(commands)`, which adds its options and sets the defaults `run`, a function of the parsed
arguments that returns an exit code (or None, for 0), and `program`, its name in error messages.
"""
