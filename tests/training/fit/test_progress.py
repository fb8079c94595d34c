"""Signals are never lost, and long epochs are announced."""

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from training.errors import Interrupted
from training.fit.progress import Progress, StopOnSignal

pytestmark = pytest.mark.keras


@pytest.fixture
def handler() -> Iterator[Callable[[int, FrameType | None], None]]:
    """Let a handler of the test's own stand for the one from before, and put back what was there."""

    def receive(number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"signal {number} came to the handler from before")

    before = signal.signal(signal.SIGTERM, receive)
    yield receive
    signal.signal(signal.SIGTERM, before)


def test_a_signal_between_two_steps_stops_after_the_next(handler: object) -> None:
    """The step that runs is finished; then the training stops, and the handler from before is back."""
    stop, steps = StopOnSignal(), []

    def train() -> None:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            for step in range(3):
                steps.append(step)
                stop.on_train_batch_end(step)

    with pytest.raises(Interrupted) as interrupted:
        train()
    assert steps == [0]
    assert interrupted.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_after_the_last_step_still_counts(handler: object) -> None:
    """Where no step follows, the training ends as interrupted all the same, and publishes nothing."""
    stop = StopOnSignal()
    with pytest.raises(Interrupted) as interrupted, stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupted.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(
    ("seconds", "said"), [(5.0, ["An epoch takes about 8 min, all of them 24 min more."]), (0.1, [])]
)
def test_a_long_first_epoch_is_announced_where_no_bar_is_shown(
    seconds: float, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log, half a minute of steps is followed by a line on how long all take; a short epoch speaks for itself."""
    now = 0.0
    monkeypatch.setattr("training.fit.progress.time.monotonic", lambda: now)
    progress = Progress(epochs=3, steps_per_epoch=100)
    progress.on_epoch_begin(0)
    for batch in range(100):
        now += seconds if batch else 20.0  # the first step also compiles
        progress.on_train_batch_end(batch)
    assert capsys.readouterr().out.splitlines() == said
    progress.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})
    progress.on_epoch_begin(1)
    progress.on_train_batch_end(0)
    assert len(capsys.readouterr().out.splitlines()) == 1  # the epoch's line
    progress.close()
