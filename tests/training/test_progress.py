"""Signals are never lost, and times read well."""

import os
import signal

import pytest

from training.errors import Interrupted
from training.progress import StopOnSignal, duration

pytestmark = pytest.mark.slow  # importing Keras takes seconds


def test_a_signal_between_two_steps_stops_after_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    """The step that runs is finished; then the training stops."""
    stop = StopOnSignal()

    def steps() -> None:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            print("the step goes on")
            stop.on_train_batch_end(0)

    with pytest.raises(Interrupted) as interruption:
        steps()
    assert interruption.value.signal_number == signal.SIGTERM
    assert capsys.readouterr().out == "the step goes on\n"


def test_a_signal_after_the_last_step_still_counts() -> None:
    """Where no step follows, the training ends as interrupted all the same, and publishes nothing."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), StopOnSignal().listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.4, "45 s"), (89, "89 s"), (720, "12 min"), (3900, "65 min"), (7500, "2 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    """Seconds up to a minute and a half, then minutes, then hours and minutes."""
    assert duration(seconds) == words
