"""Signals are never lost, times read well, and long epochs are announced."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.fit.progress import Progress, duration

pytestmark = pytest.mark.slow  # importing Keras takes seconds


def _run(steps: str, root: Path) -> str:
    """Run ``steps`` while signals are listened to, in a process of its own, and return what it prints."""
    lines = [
        "import os, signal",
        "from training.errors import Interrupted",
        "from training.fit.progress import StopOnSignal",
        "stop = StopOnSignal()",
        "try:",
        "    with stop.listening():",
        *(f"        {step}" for step in steps.splitlines()),
        "except Interrupted as interruption:",
        "    print('interrupted by', interruption.signal_number)",
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_a_signal_between_two_steps_stops_after_the_next(root: Path) -> None:
    """The step that runs is finished; then the training stops, and the handler from before is back."""
    steps = "os.kill(os.getpid(), signal.SIGTERM)\nprint('goes on')\nstop.on_train_batch_end(0)\nprint('never')"
    assert _run(steps, root) == "goes on\ninterrupted by 15\nTrue\n"


def test_a_signal_after_the_last_step_still_counts(root: Path) -> None:
    """Where no step follows, the training ends as interrupted all the same, and publishes nothing."""
    assert _run("os.kill(os.getpid(), signal.SIGTERM)", root) == "interrupted by 15\nTrue\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.4, "45 s"), (89, "89 s"), (720, "12 min"), (3900, "65 min"), (7500, "2 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    """Seconds up to a minute and a half, then minutes, then hours and minutes."""
    assert duration(seconds) == words


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
