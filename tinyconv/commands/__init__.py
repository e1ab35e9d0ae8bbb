"""The commands of `python -m tinyconv`, one file each.

Each has `HELP`, its line in the list of commands, `add_options(parser)`, and `run(args)`, which returns an
exit code (or None, for 0). What follows the first paragraph of its docstring is its description in `--help`.
`args` also holds `program`, the command's name in error messages.
"""
