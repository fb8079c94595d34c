"""Times read well, and long work says how far it is, also where there is no terminal."""

import pytest

from training.progress import bar, duration, stage


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.4, "45 s"), (89, "89 s"), (720, "12 min"), (3900, "65 min"), (7500, "2 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    """Seconds up to a minute and a half, then minutes, then hours and minutes."""
    assert duration(seconds) == words


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time in seconds, a list of one number, which the test moves."""
    now = [100.0]
    monkeypatch.setattr("training.progress.time.monotonic", lambda: now[0])
    return now


def test_long_work_says_how_far_it_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """In a log, it is a line after five seconds and then one every half a minute, with the time left."""
    with bar(1_000, "Features", "picture") as shown:
        for _ in range(1_000):
            clock[0] += 1 / 16
            shown.update(1)
    assert capsys.readouterr().err.splitlines() == [
        "Features: 80 of 1,000 pictures, time left 58 s",
        "Features: 560 of 1,000 pictures, time left 28 s",
    ]


def test_short_work_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """What is over within five seconds leaves no line, nor does a last step that took long: there is nothing left."""
    with bar(10, "Features", "picture") as shown:
        for seconds in (0.4,) * 9 + (60.0,):
            clock[0] += seconds
            shown.update(1)
    assert capsys.readouterr() == ("", "")


def test_a_stage_is_named_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    """What is done stands there while it is done."""
    with stage("Drawing the plots"):
        assert capsys.readouterr().out == "Drawing the plots ...\n"
