"""python -m tinyconv draw: a page to draw a digit on, that shows every number of the network.

The page shows the values of all layers, the gradients that flow back, and the terms that each of them is the
sum of; a second view trains LeNet-5 while one watches. It needs the extra "web". Only this machine opens it.
"""

import argparse
import threading
import webbrowser
from pathlib import Path

from tinyconv.optional import optional
from tinyconv.recipes import add_data_option, load_data, trained_model

HELP = "a page to draw on, and to see a network compute and learn"
PORT = 8765


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    weights = "safetensors file of LeNet-5's weights (default: those of the package)"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    parser.set_defaults(model="lenet")
    add_data_option(parser)
    port = f"port of the loopback address, 0 for any free one (default: {PORT})"
    parser.add_argument("--port", type=int, default=PORT, choices=range(65536), metavar="PORT", help=port)
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    for package in ("flask", "waitress"):
        optional(package, "the page needs Flask and waitress: pip install 'tinyconv[web]'")
    from tinyconv.web.server import serve

    model = trained_model(args)

    def ready(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(model.state_dict(), lambda: load_data(args.data), args.port, ready)
