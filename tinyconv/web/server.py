"""The server of the page: it computes with tinyconv, and answers in JSON.

Only this machine reaches it, and only pages of its own: it listens on the loopback address, and refuses
requests for another host (DNS rebinding) or from another origin.
"""

import base64
import contextlib
import math
import socket
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import waitress
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from tinyconv.arguments import number, one_of
from tinyconv.arrays import Array
from tinyconv.data import MNIST
from tinyconv.data.digits import SIDE
from tinyconv.layers import Sequential
from tinyconv.models import lenet5
from tinyconv.training import load_weights
from tinyconv.training.weights import write_arrays
from tinyconv.web.passes import OBJECTIVES
from tinyconv.web.tabs import IMAGE_SHAPE, Tab, Tabs

__all__ = ["create_app", "serve"]

Answer: TypeAlias = dict[str, Any]

HOST = "127.0.0.1"
MOST_BYTES = 1 << 20  # of a request; LeNet's weights are 250 KB
MOST_RATE = 10.0  # learning rate
CLASSES = 10
# What the page shows of each layer's output, and of each parameter.
MODES = {
    "forward": ("values", ""),
    "backward": ("gradients", "grads"),
    "second order": ("gradients_dot", "grads_dot"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class RefusedError(Exception):
    """A request that is refused, with a status of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def serve(
    weights: dict[str, Array], load: Callable[[], MNIST], port: int, ready: Callable[[str], None]
) -> None:
    """Serve the page on the loopback address until Ctrl-C.

    Args:
        weights: of LeNet-5, which each tab begins with.
        load: returns MNIST; it is called when a tab first needs it.
        port: 0 for any free one.
        ready: is called with the page's address once it can be opened.

    Raises:
        OSError: the port is in use.
    """
    tabs = Tabs(weights, load)
    with socket.create_server((HOST, port)) as listening:
        server = waitress.create_server(
            create_app(tabs), sockets=[listening], threads=8, max_request_body_size=MOST_BYTES, ident=None
        )
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        try:
            server.run()  # Ctrl-C ends it
        finally:
            server.close()
            tabs.close()


def create_app(tabs: Tabs) -> Flask:
    """Return the Flask application for the `tabs`."""
    app = Flask("tinyconv.web", static_folder=Path(__file__).with_name("static"))
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.before_request(_check_origin)
    app.after_request(_with_headers)
    app.register_error_handler(Exception, _as_json)
    app.add_url_rule("/", view_func=partial(app.send_static_file, "index.html"), endpoint="page")
    answers = Answers(tabs)
    for method, path, name in ROUTES:
        app.add_url_rule(path, endpoint=name, view_func=getattr(answers, name), methods=[method])
    return app


ROUTES = (
    ("POST", "/api/tabs", "open_tab"),
    ("GET", "/api/samples/<int:number>", "sample"),
    ("POST", "/api/tabs/<key>/pass", "run_pass"),
    ("GET", "/api/tabs/<key>/terms", "terms"),
    ("POST", "/api/tabs/<key>/step", "step"),
    ("GET", "/api/tabs/<key>/weights", "weights"),
    ("PUT", "/api/tabs/<key>/weights", "load_weights"),
    ("POST", "/api/tabs/<key>/reset", "reset"),
    ("GET", "/api/tabs/<key>/lenet5.safetensors", "download"),
    ("POST", "/api/tabs/<key>/training", "control"),
    ("GET", "/api/tabs/<key>/training", "watch"),
)


class Answers:
    """What the server answers, a method for each of `ROUTES`."""

    def __init__(self, tabs: Tabs) -> None:
        self._tabs = tabs

    def open_tab(self) -> Answer:
        """Open a tab: its key, and the layers of the network."""
        _json()
        key = self._tabs.open()
        return {"tab": key, "layers": _layers(self._tab(key).model)}

    def sample(self, number: int) -> Answer:
        """Give a test image and its label."""
        data = self._tabs.data
        if number >= len(data.test_images):
            raise RefusedError(404, f"there are {len(data.test_images)} test images")
        image = data.test_images[number].astype(np.float32) / 255
        return {"pixels": _array(image), "label": int(data.test_labels[number])}

    def run_pass(self, key: str) -> Answer:
        """Compute all numbers for a drawing, and give those of a mode."""
        sent, tab = _json(), self._tab(key)
        mode = one_of("mode", sent.get("mode"), tuple(MODES))
        objective = one_of("objective", sent.get("objective"), tuple(OBJECTIVES))
        pixels, stroke = _image(sent, "pixels", 0, 1), _image(sent, "stroke", -1, 1)
        numbers, version = tab.run(pixels, _target(sent), objective, stroke)
        layers, params = MODES[mode]
        return {
            "layers": [_array(array) for array in getattr(numbers, layers)],
            "params": _arrays(getattr(numbers, params)) if params else {},
            "probabilities": numbers.probabilities.tolist(),
            "loss": numbers.loss,
            "version": version,
        }

    def terms(self, key: str) -> Answer:
        """Give what an element is the sum of."""
        layer, index = _integer("layer"), _integer("index")
        return self._tab(key).terms(layer, request.args.get("kind", ""), index)

    def step(self, key: str) -> Answer:
        """Make one step of gradient descent."""
        sent, tab = _json(), self._tab(key)
        tab.step(_target(sent), _rate(sent))
        return {"version": tab.version}

    def weights(self, key: str) -> Answer:
        """Give the weights."""
        tab = self._tab(key)
        return {"version": tab.version, "params": _arrays(tab.weights())}

    def load_weights(self, key: str) -> Answer:
        """Load a file of weights, which is the request."""
        tab, model = self._tab(key), lenet5()
        if request.mimetype != "application/octet-stream":
            raise RefusedError(415, "weights must be sent as application/octet-stream")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights")
            path.write_bytes(request.get_data())
            try:
                load_weights(model, path)
            except ValueError as error:
                raise RefusedError(400, str(error).replace(str(path), "the file")) from error
        tab.load(model.state_dict())
        return {"version": tab.version}

    def reset(self, key: str) -> Answer:
        """Load the weights of the beginning."""
        _json()
        tab = self._tab(key)
        tab.load()
        return {"version": tab.version}

    def download(self, key: str) -> Response:
        """Give the weights as a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights")
            write_arrays(path, self._tab(key).weights())
            return Response(path.read_bytes(), mimetype="application/octet-stream")

    def control(self, key: str) -> Answer:
        """Start a training, pause it and so on."""
        sent, tab = _json(), self._tab(key)
        action = one_of("action", sent.get("action"), ("start", "go", "step", "pause", "rate", "use"))
        if action == "start":
            tab.start(self._tabs.data, _rate(sent))
        training = tab.training
        if training is None:
            raise RefusedError(400, "no training has been started")
        if action in ("start", "go", "step"):
            training.go(1 if action == "step" else math.inf)
        elif action == "pause":
            training.pause()
        elif action == "rate":
            training.lr = _rate(sent)
        else:
            tab.load(training.state.weights)
        return {"version": tab.version}

    def watch(self, key: str) -> Answer:
        """Give what has happened in the training: losses and accuracies from a number on."""
        tab = self._tab(key)
        training, losses, accuracies = tab.training, _integer("losses"), _integer("accuracies")
        if training is None:
            return {"phase": "none"}
        state = training.state
        return {
            "phase": state.phase,
            "message": state.message,
            "lr": training.lr,
            "steps": training.steps,
            "losses": state.losses[max(losses, 0) :],
            "accuracies": state.accuracies[max(accuracies, 0) :],
            "params": _arrays(state.weights),
            "layers": [_array(array) for array in tab.watched()],
        }

    def _tab(self, key: str) -> Tab:
        try:
            return self._tabs[key]
        except KeyError:
            raise RefusedError(410, "this tab is not open any more: load the page again") from None


def _check_origin() -> None:
    """Refuse a request for another host, or one that a page of another origin makes."""
    host = request.host
    if (host.rpartition(":")[0] or host) not in (HOST, "localhost"):
        raise RefusedError(403, f"the host {host!r} is not this machine")
    origin = request.headers.get("Origin", f"http://{host}")
    site = request.headers.get("Sec-Fetch-Site", "none")
    opens_page = request.method == "GET" and not request.path.startswith("/api/")
    if origin != f"http://{host}" or (site not in ("same-origin", "none") and not opens_page):
        raise RefusedError(403, "the request comes from another origin")


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _as_json(error: Exception) -> tuple[Answer, int]:
    """The answer for an error."""
    if isinstance(error, RefusedError):
        return {"error": str(error)}, error.status
    if isinstance(error, HTTPException):  # 404, 405, 413 and the like
        return {"error": str(error.description)}, error.code or 500
    if isinstance(error, (ValueError, TypeError)):
        return {"error": str(error)}, 400
    if isinstance(error, OSError):  # MNIST cannot be read
        return {"error": str(error)}, 503
    raise error


def _json() -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise RefusedError(415, "the request must be application/json")
    sent = request.get_json()
    if not isinstance(sent, dict):
        raise RefusedError(400, "the request must be a JSON object")
    return sent


def _image(sent: dict[str, Any], name: str, low: float, high: float) -> Array:
    """(28, 28): float32 in base64, finite, and within [low, high]; zeros where nothing was sent."""
    encoded = sent.get(name)
    if encoded is None:
        return np.zeros((SIDE, SIDE), np.float32)
    with contextlib.suppress(ValueError, TypeError):
        values = np.frombuffer(base64.b64decode(encoded, validate=True), "<f4")
        if values.size == SIDE * SIDE and bool(((values >= low) & (values <= high)).all()):
            return values.reshape(SIDE, SIDE)
    raise RefusedError(400, f"`{name}` must be {SIDE} x {SIDE} float32 from {low} to {high}, in base64")


def _target(sent: dict[str, Any]) -> int:
    target = sent.get("target")
    if type(target) is not int or not 0 <= target < CLASSES:
        raise RefusedError(400, f"`target` (={target!r}) must be a class, 0 to {CLASSES - 1}")
    return target


def _rate(sent: dict[str, Any]) -> float:
    return number("lr", sent.get("lr"), 0.0, MOST_RATE)


def _integer(name: str) -> int:
    """An argument of the address, 0 where it is left out."""
    text = request.args.get(name, "0")
    try:
        return int(text)
    except ValueError:
        raise RefusedError(400, f"`{name}` (={text!r}) must be an integer") from None


def _array(array: Array) -> dict[str, Any]:
    """Shape, and float32 in base64."""
    encoded = base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    return {"shape": list(array.shape), "data": encoded}


def _arrays(arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {name: _array(array) for name, array in arrays.items()}


def _layers(model: Sequential) -> list[dict[str, Any]]:
    """What the page needs to know of each layer."""
    shape: tuple[int, ...] = IMAGE_SHAPE
    described = []
    for layer in model:
        output = layer.output_shape(shape)
        described.append(
            {
                "kind": type(layer).__name__,
                "text": repr(layer),
                "input": list(shape[1:]),
                "output": list(output[1:]),
                "params": {name: list(array.shape) for name, array in layer.params.items()},
            }
        )
        shape = output
    return described
