"""A training that can be watched: it runs in a thread, and is paused, stepped and given another rate."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from tinyconv.arrays import Array
from tinyconv.data import MNIST, DataLoader, normalize
from tinyconv.layers import CrossEntropyLoss
from tinyconv.models import lenet5
from tinyconv.optim import SGD
from tinyconv.training import Callback, Run, Trainer

__all__ = ["LiveTraining", "State"]

EPOCHS, BATCH_SIZE, MOMENTUM = 3, 128, 0.9
TESTED = 2000  # test images
TESTED_EVERY = 25  # steps
SHOWN_EVERY = 0.1  # seconds


@dataclass
class State:
    """What there is to see of a training.

    Attributes:
        losses: of each step.
        weights: of the network, as they were a moment ago.
        phase: "paused", "running", "finished" or "failed".
        message: why it has failed.
        accuracies: pairs (step, accuracy on some test images).
    """

    losses: list[float]
    weights: dict[str, Array]
    phase: str = "paused"
    message: str = ""
    accuracies: list[tuple[int, float]] = field(default_factory=list)


class StoppedError(Exception):
    """Ends the training's thread."""


class LiveTraining(Callback):
    """Train LeNet-5 from random weights on MNIST by SGD with momentum 0.9, in a thread, paused at first.

    Args:
        data: MNIST.
        lr: learning rate.
        seed: of the weights and the order of the images.

    Attributes:
        lr: the learning rate of the next step, which may be assigned at any time.
        state: its present `State`.
    """

    def __init__(self, data: MNIST, lr: float, seed: int) -> None:
        self.lr = lr
        self._changed = threading.Condition()
        self._steps: float = 0  # that may still be made before a pause
        self._stops = False
        self._shown = 0.0
        self._tests = normalize(data.test_images[:TESTED]), data.test_labels[:TESTED]
        model = lenet5(generator=seed)
        optimizer = SGD(model, lr=lr, momentum=MOMENTUM)
        self._trainer = Trainer(model, CrossEntropyLoss(), optimizer, callbacks=[self], progress=False)
        self.state = State(self._trainer.history.step_losses, model.state_dict())
        images = data.train_images, data.train_labels
        self._batches = DataLoader(images, BATCH_SIZE, shuffle=True, generator=seed, transform=normalize)
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    @property
    def steps(self) -> int:
        """Return the number of steps that the whole training has."""
        return EPOCHS * len(self._batches)

    def go(self, steps: float = np.inf) -> None:
        """Make `steps` steps, or go on until `pause`."""
        with self._changed:
            self._steps = steps
            self._changed.notify_all()

    def pause(self) -> None:
        """Pause after the present step."""
        self.go(0)

    def stop(self) -> None:
        """End the training, and wait for its thread."""
        self._stops = True
        self.go(0)
        self._thread.join()

    def _train(self) -> None:
        try:
            self._trainer.fit(self._batches, EPOCHS)
            self.state.phase = "finished"
        except StoppedError:
            pass
        except Exception as error:  # the page shows it
            self.state.message, self.state.phase = str(error), "failed"

    def on_batch_begin(self, run: Run) -> None:
        """Wait while it is paused."""
        with self._changed:
            while not self._stops and self._steps <= 0:
                self.state.phase = "paused"
                self._changed.wait()
            self._steps -= 1
        if self._stops:
            raise StoppedError
        self.state.phase = "running"
        run.optimizer.lr = self.lr

    def on_batch_end(self, run: Run) -> None:
        """Note what there is to see."""
        step = len(self.state.losses)
        rests = step == self.steps or self._steps <= 0
        if rests or step % TESTED_EVERY == 0:
            accuracy = self._trainer.evaluate(self._tests).accuracy or 0.0
            self.state.accuracies.append((step, accuracy))
        if rests or time.monotonic() > self._shown + SHOWN_EVERY:
            self.state.weights, self._shown = run.model.state_dict(), time.monotonic()
