"""What pytest leaves out where an optional package is not installed."""

from importlib.util import find_spec

NEEDS = {
    "flask": "tinyconv/web/server.py",
    "matplotlib": "tinyconv/plots/shown.py",
    "torch": "tinyconv/convert/torch_modules.py",
}
collect_ignore = [path for package, path in NEEDS.items() if not find_spec(package)]
