"""What a training shows of itself in a terminal, in a log file and in a notebook."""

import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tqdm.utils import disp_len

from tests.test_examples import run
from tinyconv import CrossEntropyLoss, Linear, MSELoss, optim
from tinyconv.training import Trainer
from tinyconv.training.progress import FORMAT, Bar


def train(
    epochs: int = 2, classes: bool = True, validation: bool = False, stream: bool = False, **options: Any
) -> None:
    model = Linear(2, 2, generator=0)
    criterion = CrossEntropyLoss() if classes else MSELoss()
    trainer = Trainer(model, criterion, optim.SGD(model, lr=1e-3), **options)
    x = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    data = x, (np.arange(60) % 2 if classes else x)
    batches: Any = [(data[0][i : i + 20], data[1][i : i + 20]) for i in (0, 20, 40)] if stream else data
    trainer.fit(batches, epochs, batch_size=20, validation=data if validation else None, generator=0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes stderr a terminal of so many columns."""

    def make(columns: int) -> None:
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stderr.fileno", lambda: 2, raising=False)
        monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
        monkeypatch.setenv("COLUMNS", str(columns))  # where tqdm before 4.68 looks
        monkeypatch.setenv("LINES", "24")
        monkeypatch.setattr("tinyconv.training.progress.SHOWN_SECONDS", 0)

    return make


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("classes", [False, True])
def test_the_bar_fits_its_terminal_with_all_that_it_says(
    columns: int, stream: bool, classes: bool, terminal: Callable[[int], None], capsys: Any
) -> None:
    terminal(columns)
    train(12, classes, stream=stream)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip()]
    assert columns - 1 <= max(map(disp_len, lines)) <= columns or stream
    whole = [line for line in lines if "loss=" in line and line.startswith("epoch 12/12")]
    ends = r"/s, loss=\d\S*, acc=\d+\.\d%" if classes else r"/s, loss=\d\S*\d"
    assert whole
    for line in whole:
        assert re.search(ends + "$", line), line
        assert re.match(
            r"epoch 12/12: \S+ images, " if stream else r"epoch 12/12 [ \d]{3}%\|.+\| \d\d:", line
        )


def test_a_finished_bar_says_how_long_it_took(
    terminal: Callable[[int], None], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tinyconv.training.progress.Bar.monitor_interval", 0)
    terminal(80)
    bar = Bar(total=60, bar_format=FORMAT, unit="", unit_scale=True, file=sys.stderr)
    monkeypatch.setattr(bar, "_time", lambda: now[0])
    bar.start_t = bar.last_print_t = 0.0
    now[0] = 70.0
    bar.update(50)
    bar.close()
    *_, before, last = (part for part in re.split(r"[\r\n]+", capsys.readouterr().err) if part.strip())
    assert "| 00:14 " in before
    assert "| 01:10 " in last


def test_a_log_file_gets_a_line_per_epoch(capsys: Any) -> None:
    train(validation=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    result = r"loss \d+\.\d+, accuracy \d+\.\d\d%; "
    lines = shown.err.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"epoch {number}/2: {result}validation {result}\d+\.\d s", line), line


def test_a_log_file_says_no_more_than_there_is(capsys: Any) -> None:
    train(1, classes=False, stream=True)
    assert re.fullmatch(r"epoch 1/1: loss \d+\.\d+; \d+\.\d s\n", capsys.readouterr().err)


def test_without_progress_nothing_is_printed(terminal: Callable[[int], None], capsys: Any) -> None:
    train(progress=False)
    terminal(80)
    train(progress=False)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_a_notebook_without_widgets_shows_text_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("ipykernel.zmqshell"))
    train()
    shown = capsys.readouterr()
    assert shown.err == ""
    assert re.search(r"\repoch 2/2 100%\|█+\| \S+ \S+/s, loss=\S+, acc=\S+%\n", shown.out)


NOTEBOOK = """
import sys, types
class Shell:
    config = {"IPKernelApp": {}}  # by which tqdm before 4.70 knows a notebook
class Widget:
    def __init__(self, *args, **kwargs):
        self.__dict__.update(kwargs, style=types.SimpleNamespace(), layout=types.SimpleNamespace())
        self.value = self.bar_style = ""
    def close(self):
        pass
shown = []
IPython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
IPython.get_ipython, IPython.display, display.display = Shell, display, shown.append
sys.modules |= {"ipykernel.zmqshell": types.ModuleType("z"), "IPython": IPython, "IPython.display": display}
if WIDGETS:
    ipywidgets = sys.modules["ipywidgets"] = types.ModuleType("ipywidgets")
    ipywidgets.HTML = ipywidgets.FloatProgress = ipywidgets.HBox = Widget
else:
    sys.modules["ipywidgets"] = None
import warnings
warnings.simplefilter("error")
from tests.test_progress import train
train(1)
from tinyconv.training.progress import LOCK, Bar
assert Bar.get_lock() is LOCK
for box in shown:
    left, bar, right = box.children
    print("widget", left.value.replace("\\u2007", " "), bar.value, right.value.replace("\\u2007", " "))
"""


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_shows_a_widget_where_there_are_widgets(widgets: bool) -> None:
    shown = run("-c", f"WIDGETS = {widgets}{NOTEBOOK}")
    if widgets:
        assert re.fullmatch(r"widget epoch 1/1 100% 60 +\S+ \S+/s, loss=\S+, acc=\S+%\n", shown)
    else:
        assert re.fullmatch(r"\n(epoch 1/1 .*\n)+", shown)
