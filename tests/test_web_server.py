"""The server of `tinyconv draw`: what it answers, and what it refuses."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_web_numbers import DATA, drawn, small_data
from tinyconv.__main__ import main
from tinyconv.arrays import Array
from tinyconv.data import MNIST, normalize
from tinyconv.models import lenet5
from tinyconv.training import save_weights

pytest.importorskip("flask", reason="the page needs Flask")
pytest.importorskip("waitress", reason="the page needs waitress")

from tinyconv.web.server import MOST_BYTES, create_app
from tinyconv.web.tabs import Tabs

HOST = {"Host": "127.0.0.1:8765"}


class Client:
    """A browser's tab."""

    def __init__(self, tabs: Tabs) -> None:
        self.tabs, self.client = tabs, create_app(tabs).test_client()
        answer = self.post("/api/tabs", {})
        self.layers, self.tab = answer["layers"], f"/api/tabs/{answer['tab']}"

    def post(self, path: str, body: Any, status: int = 200, **options: Any) -> Any:
        answer = self.client.post(path, json=body, headers=HOST, **options)
        assert answer.status_code == status, answer.text
        return answer.json

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(path, headers=HOST)
        assert answer.status_code == status, answer.text
        return answer.json

    def page(self, path: str, headers: dict[str, str] = HOST) -> Any:
        """The answer to a request for a file, whose text has been read."""
        with self.client.get(path, headers=headers) as answer:
            assert answer.get_data()
            return answer

    def run(self, **changes: Any) -> Any:
        pixels, stroke = drawn()
        sent = {"pixels": encoded(pixels), "stroke": encoded(stroke), "target": 3, "mode": "forward"}
        return self.post(f"{self.tab}/pass", sent | {"objective": "loss"} | changes)


def encoded(array: Array) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def decoded(sent: dict[str, Any]) -> Array:
    return np.frombuffer(base64.b64decode(sent["data"]), "<f4").reshape(sent["shape"])


def unread() -> MNIST:
    raise OSError("no data: --data DIR must name a folder")


@pytest.fixture
def client() -> Iterator[Client]:
    opened = Client(Tabs(lenet5(pretrained=True).state_dict(), small_data))
    yield opened
    opened.tabs.close()


def test_the_page_and_its_files_are_there_and_from_nowhere_else(client: Client) -> None:
    page = client.page("/")
    assert page.status_code == 200
    files = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text))
    names = {
        f"/static/{path.name}" for path in (Path(__file__).parent.parent / "tinyconv/web/static").iterdir()
    }
    scripts = [client.page(name) for name in sorted(names)]
    assert all(one.status_code == 200 for one in scripts)
    imported = {f"/static/{name}" for one in scripts for name in re.findall(r'from "\./([^"]+)"', one.text)}
    assert files | imported | {"/static/index.html"} == names
    assert not any(re.search(r"https?://(?!127)", one.text) for one in (page, *scripts))
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-cache"  # a newer page is read after an update
    answer = client.client.get(f"{client.tab}/weights", headers=HOST)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_pass_gives_the_numbers_of_its_mode(client: Client) -> None:
    model = lenet5(pretrained=True).eval()
    x = (drawn()[0].reshape(1, 1, 28, 28) - 0.1307) / 0.3081
    forward, backward, second = (client.run(mode=mode) for mode in ("forward", "backward", "second order"))
    np.testing.assert_allclose(decoded(forward["layers"][-1]), model.predict(x.astype(np.float32)), rtol=1e-4)
    assert len(forward["layers"]) == len(client.layers) + 1 == 13
    assert forward["params"] == {}
    assert sorted(backward["params"]) == sorted(second["params"]) == sorted(model.params)
    assert decoded(backward["layers"][0]).shape == (1, 1, 28, 28)
    assert np.abs(decoded(second["layers"][0])).max() > 0
    assert sum(forward["probabilities"]) == pytest.approx(1)


def test_terms_are_given_by_layer_kind_and_index(client: Client) -> None:
    value = decoded(client.run()["layers"][4]).reshape(-1)[77]
    terms = client.get(f"{client.tab}/terms?layer=3&kind=output&index=77")
    assert terms["total"] == pytest.approx(float(value))
    assert len(terms["left"]) == 150
    assert client.get(f"{client.tab}/terms?layer=3&kind=output&index=x", 400)["error"] == (
        "`index` (='x') must be an integer"
    )
    assert (
        "must be between 0 and 1599"
        in client.get(f"{client.tab}/terms?layer=3&kind=output&index=1600", 400)["error"]
    )


def test_a_step_changes_the_weights_of_its_tab_only_and_reset_takes_it_back(client: Client) -> None:
    other = client.post("/api/tabs", {})["tab"]
    first = client.run()
    before = client.get(f"{client.tab}/weights")
    client.post(f"{client.tab}/step", {"target": 3, "lr": 0.01})
    after, untouched = client.get(f"{client.tab}/weights"), client.get(f"/api/tabs/{other}/weights")
    assert after["version"] > before["version"]
    assert after["params"]["0.weight"] != before["params"]["0.weight"]
    assert untouched["params"] == before["params"]
    assert client.run()["loss"] < first["loss"]
    client.post(f"{client.tab}/reset", {})
    assert client.run()["loss"] == first["loss"]


def test_weights_are_loaded_from_a_file_and_given_as_one(client: Client, tmp_path: Path) -> None:
    model, path = lenet5(generator=7), tmp_path / "mine.safetensors"
    save_weights(model, path)
    put = {"headers": HOST, "content_type": "application/octet-stream"}
    assert client.client.put(f"{client.tab}/weights", data=path.read_bytes(), **put).status_code == 200
    params = client.get(f"{client.tab}/weights")["params"]
    np.testing.assert_array_equal(decoded(params["0.weight"]), model.params["0.weight"])
    given = client.client.get(f"{client.tab}/lenet5.safetensors", headers=HOST)
    assert given.data == path.read_bytes()
    for wrong in (b"", b"not a file of weights", path.read_bytes()[:-4]):
        answer = client.client.put(f"{client.tab}/weights", data=wrong, **put)
        assert answer.status_code == 400
        assert answer.json is not None
        assert answer.json["error"].startswith("the file ")
    assert client.get(f"{client.tab}/weights")["params"] == params
    other = {"headers": HOST, "content_type": "text/plain"}
    assert client.client.put(f"{client.tab}/weights", data=b"", **other).status_code == 415


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": "!"}, "`pixels` must be 28 x 28 float32 from 0 to 1, in base64"),
        ({"pixels": 5}, "`pixels` must be 28 x 28 float32 from 0 to 1, in base64"),
        ({"pixels": encoded(np.zeros(783))}, "`pixels` must be 28 x 28"),
        ({"pixels": encoded(np.full(784, 1.5))}, "from 0 to 1"),
        ({"pixels": encoded(np.full(784, np.nan))}, "from 0 to 1"),
        ({"stroke": encoded(np.full(784, np.inf))}, "`stroke` must be 28 x 28 float32 from -1 to 1"),
        ({"target": 10}, "`target` (=10) must be a class, 0 to 9"),
        ({"target": True}, "`target` (=True) must be a class"),
        ({"target": None}, "`target` (=None) must be a class"),
        ({"mode": "sideways"}, "`mode` (='sideways') must be one of 'forward', 'backward', 'second order'"),
        ({"mode": []}, "`mode` (=[]) must be one of 'forward'"),
        ({"objective": "joy"}, "`objective` (='joy') must be one of 'loss', 'score'"),
    ],
)
def test_a_malformed_pass_is_refused(client: Client, changes: dict[str, Any], message: str) -> None:
    sent = {"pixels": encoded(drawn()[0]), "target": 3, "mode": "forward", "objective": "loss"} | changes
    assert message in client.post(f"{client.tab}/pass", sent, 400)["error"]


@pytest.mark.parametrize("rate", [-0.1, 11, "0.1", None, True, float("nan"), float("inf")])
def test_a_learning_rate_out_of_range_is_refused(client: Client, rate: Any) -> None:
    message = "must be between 0 and 10" if type(rate) in (int, float) else "must be a number"
    for path, body in (("step", {"target": 3}), ("training", {"action": "start"})):
        assert message in client.post(f"{client.tab}/{path}", body | {"lr": rate}, 400)["error"]


def test_what_is_not_json_too_large_or_unknown_is_refused(client: Client) -> None:
    path = f"{client.tab}/pass"
    plain = client.client.post(path, data="{}", headers=HOST, content_type="text/plain")
    broken = client.client.post(path, data="{", headers=HOST, content_type="application/json")
    large = client.client.post(
        path, data=b" " * (MOST_BYTES + 1), headers=HOST, content_type="application/json"
    )
    assert [plain.status_code, broken.status_code, large.status_code] == [415, 400, 413]
    assert "object" in client.post(path, [1], 400)["error"]
    assert "load the page again" in client.post("/api/tabs/unknown/pass", {}, 410)["error"]
    assert client.get("/api/nothing", 404)["error"]
    assert client.client.delete(path, headers=HOST).status_code == 405
    assert client.get("/api/samples/50", 404)["error"] == "there are 50 test images"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8765"}, 200),
        ({"Host": "127.0.0.1:8765", "Origin": "http://127.0.0.1:8765"}, 200),
        ({"Host": "127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8765"}, 403),
        ({"Host": "127.0.0.1:8765", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:8765", "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": "127.0.0.1:8765", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8765", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_another_host_and_another_origin_are_refused(
    client: Client, headers: dict[str, str], status: int
) -> None:
    assert client.client.post("/api/tabs", json={}, headers=headers).status_code == status
    if headers["Host"].startswith("evil"):
        assert client.client.get("/", headers=headers).status_code == 403


def test_a_link_from_another_page_opens_the_page_but_reads_nothing(client: Client) -> None:
    headers = HOST | {"Sec-Fetch-Site": "cross-site"}
    assert client.page("/", headers).status_code == 200
    assert client.client.get(f"{client.tab}/weights", headers=headers).status_code == 403


def watched(client: Client, until: Any) -> Any:
    deadline = time.monotonic() + 60
    while True:
        state = client.get(f"{client.tab}/training?losses=0&accuracies=0")
        if until(state):
            return state
        assert time.monotonic() < deadline, state["phase"]
        time.sleep(0.01)


def test_a_training_starts_pauses_steps_and_hands_on_its_weights(client: Client) -> None:
    path = f"{client.tab}/training"
    assert client.get(path) == {"phase": "none"}
    assert "no training" in client.post(path, {"action": "pause"}, 400)["error"]
    assert "must be one of 'start', 'go'" in client.post(path, {"action": "fly"}, 400)["error"]
    client.run()
    client.post(path, {"action": "start", "lr": 0.01})
    finished = watched(client, lambda state: state["phase"] == "finished")
    assert len(finished["losses"]) == finished["steps"] == 9
    assert len(finished["layers"]) == 13
    assert client.get(f"{path}?losses=7&accuracies=0")["losses"] == finished["losses"][7:]
    client.post(path, {"action": "use"})
    assert client.get(f"{client.tab}/weights")["params"] == finished["params"]
    client.post(path, {"action": "start", "lr": 0.0})
    client.post(path, {"action": "pause"})
    paused = watched(client, lambda state: state["phase"] == "paused")
    client.post(path, {"action": "rate", "lr": 0.5})
    client.post(path, {"action": "step"})
    stepped = watched(client, lambda state: len(state["losses"]) == len(paused["losses"]) + 1)
    assert stepped["lr"] == 0.5


def test_without_data_a_training_says_what_is_missing_and_drawing_goes_on() -> None:
    client = Client(Tabs(lenet5(pretrained=True).state_dict(), unread))
    body = {"action": "start", "lr": 0.1}
    assert "--data DIR" in client.post(f"{client.tab}/training", body, 503)["error"]
    assert "--data DIR" in client.get("/api/samples/0", 503)["error"]
    assert len(client.run()["layers"]) == 13


def test_tabs_at_once_get_the_answers_to_their_own_questions(client: Client) -> None:
    rng, model = np.random.default_rng(0), lenet5(pretrained=True)
    found: dict[int, list[Array]] = {}
    images = rng.integers(0, 256, (6, 28, 28)).astype(np.uint8)
    tabs = [client.post("/api/tabs", {})["tab"] for _ in images]
    app = client.client.application

    def ask(number: int) -> None:
        sent = {"pixels": encoded(images[number] / 255), "target": 0, "mode": "forward", "objective": "loss"}
        own = app.test_client()
        for _ in range(5):
            answer = own.post(f"/api/tabs/{tabs[number]}/pass", json=sent, headers=HOST)
            assert answer.json is not None
            found.setdefault(number, []).append(decoded(answer.json["layers"][-1])[0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(model.predict(normalize(images))):
        assert len(found[number]) == 5
        for values in found[number]:
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)


def started(*options: str) -> tuple["subprocess.Popen[str]", str]:
    """The command, and the address that it prints."""
    command = [sys.executable, "-m", "tinyconv", "draw", "--no-browser", "--data", str(DATA), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)\n", line)
    assert match is not None, (line, process.stderr and process.stderr.read())
    return process, match[1]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX")
def test_the_command_serves_until_ctrl_c_also_while_it_trains() -> None:
    process, address = started("--port", "0")
    with process:
        headers = {"Content-Type": "application/json"}

        def post(path: str, body: Any) -> Any:
            data = json.dumps(body).encode()
            request = urllib.request.Request(address + path, data, headers, method="POST")
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())

        tab = post("api/tabs", {})["tab"]
        post(f"api/tabs/{tab}/training", {"action": "start", "lr": 0.01})
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    try:
        code: object = main(["draw", "--no-browser", *options])
    except SystemExit as error:
        code = error.code
    assert code == 2
    return capsys.readouterr().err


def test_a_port_in_use_and_a_wrong_file_end_the_command_with_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refused(capsys, "--port", str(taken.getsockname()[1]))
    assert re.fullmatch(r"python -m tinyconv draw: error: .*in use.*\n", line)
    (tmp_path / "wrong").write_bytes(b"no weights")
    assert "is not a complete safetensors file" in refused(capsys, "--weights", str(tmp_path / "wrong"))
    assert "invalid choice" in refused(capsys, "--port", "70000")


def test_without_flask_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    assert "pip install 'tinyconv[web]'" in refused(capsys)
