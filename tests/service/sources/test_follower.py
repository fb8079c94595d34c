"""The thread that follows a source: how often it asks, what it tells, and that it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from artifact.errors import DAMAGED, REASONS, UNREACHABLE, SourceFails, Stopped
from service.sources.catalogue import Catalogue
from service.sources.follower import Follower
from tests.service.running import wait_for


class Scripted:
    """A source that fails as it is told to, and remembers when it was asked."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.asked: list[float] = []
        self.stop: Callable[[], bool] = lambda: False
        self.hangs = False

    def __str__(self) -> str:
        return "scripted://source"

    def look(self, known: str | None) -> Catalogue | None:
        self.asked.append(time.monotonic())
        while self.hangs:
            if self.stop():
                raise Stopped
            time.sleep(0.01)
        if self.fails is not None:
            raise self.fails
        return Catalogue({}, "mark")

    def close(self) -> None:
        pass


class Counted:
    """Counts what the follower tells."""

    def __init__(self) -> None:
        self.synced = 0
        self.failed: dict[str, int] = {}

    def source_synced(self) -> None:
        self.synced += 1

    def source_failed(self, reason: str, times: int = 1) -> None:
        self.failed[reason] = self.failed.get(reason, 0) + times


@pytest.fixture
def source() -> Scripted:
    """The source that is followed."""
    return Scripted()


@pytest.fixture
def counted() -> Counted:
    """What the follower has told."""
    return Counted()


@pytest.fixture
def follow(source: Scripted, counted: Counted, tmp_path: Path) -> Iterator[Callable[[float], Follower]]:
    """Starts a follower that asks as often as is said; stops it after the test."""
    with ExitStack() as stack:

        def start(poll_seconds: float) -> Follower:
            def opened(_: Path, stop: Callable[[], bool]) -> Scripted:
                source.stop = stop
                return source

            follower = Follower(opened, tmp_path / "models", None, None, poll_seconds, set, counted)
            stack.callback(follower.close)
            follower.start()
            return follower

        yield start


def test_it_asks_as_often_as_is_said(follow: Callable[[float], Follower], source: Scripted, counted: Counted) -> None:
    """Each look that finds nothing new counts as synced, and every reason for a failure begins at 0."""
    follower = follow(0.05)
    wait_for(lambda: counted.synced > 3, lambda: "it does not ask")
    assert all(later - earlier >= 0.05 for earlier, later in zip(source.asked, source.asked[1:], strict=False))
    assert counted.failed == dict.fromkeys(REASONS, 0)
    assert follower.reason is None


def test_after_a_failure_it_asks_sooner_and_then_seldom(
    follow: Callable[[float], Follower], source: Scripted, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow and differ; what fails is told until it does not."""
    monkeypatch.setattr("service.sources.follower._FIRST_PAUSE", 0.02)
    source.fails = SourceFails(UNREACHABLE, "there is no source")
    follower = follow(60.0)
    wait_for(lambda: len(source.asked) > 5, lambda: "it does not ask again")
    pauses = [later - earlier for earlier, later in zip(source.asked, source.asked[1:], strict=False)]
    assert pauses[4] > 2 * pauses[0]
    assert follower.reason == "there is no source"
    assert counted.failed[UNREACHABLE] >= 5
    source.fails = None
    wait_for(lambda: counted.synced == 1, lambda: "it does not recover")
    assert follower.reason is None


def test_pauses_never_exceed_the_usual_one(tmp_path: Path, counted: Counted) -> None:
    """Whoever asks every five seconds does so after many failures as well; an hour's pause is a minute's then."""
    often, seldom = (
        Follower(lambda *_: Scripted(), tmp_path, None, None, seconds, set, counted) for seconds in (5.0, 3600.0)
    )
    assert often._pause(0) == 5.0
    assert all(often._pause(failures) <= 5.0 for failures in range(100))
    assert seldom._pause(0) == 3600.0
    assert all(0.5 <= seldom._pause(failures) <= 60.0 for failures in range(1, 100))
    assert max(seldom._pause(20) for _ in range(20)) > 30.0


def test_what_nobody_has_thought_of_does_not_end_it(
    follow: Callable[[float], Follower], source: Scripted, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of another kind is logged, and the source asked again."""
    monkeypatch.setattr("service.sources.follower._FIRST_PAUSE", 0.02)
    source.fails = ZeroDivisionError()
    follow(0.05)
    wait_for(lambda: len(source.asked) > 2, lambda: "it does not ask again")
    source.fails = None
    wait_for(lambda: counted.synced > 0, lambda: "it does not recover")


def test_only_one_of_two_syncs_and_the_other_tells_what_fails(
    follow: Callable[[float], Follower], source: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second takes over when the first has ended."""
    monkeypatch.setattr("service.sources.follower._LOOK_SECONDS", 0.02)
    source.fails = SourceFails(DAMAGED, "a version is damaged")
    first = follow(0.05)
    wait_for(lambda: first.reason is not None, lambda: "the first does not ask")
    second = follow(0.05)
    wait_for(lambda: second.reason == "a version is damaged", lambda: "the second does not tell")
    assert second._sync is None
    first.close()
    wait_for(lambda: second._sync is not None, lambda: "the second does not take over")


def test_it_ends_while_it_waits(follow: Callable[[float], Follower], source: Scripted) -> None:
    """Neither a pause nor a source that hangs holds up the end of a worker."""
    follower = follow(3600.0)
    wait_for(lambda: bool(source.asked), lambda: "it does not ask")
    begun = time.monotonic()
    follower.close()
    assert time.monotonic() - begun < 0.5
    source.hangs = True
    hanging = follow(3600.0)
    wait_for(lambda: len(source.asked) > 1, lambda: "it does not ask")
    begun = time.monotonic()
    hanging.close()
    assert time.monotonic() - begun < 0.5


def test_no_memory_to_wait_costs_a_moment(
    follow: Callable[[float], Follower], counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread asks again, and gives the lock to no other worker for good."""

    def fail(*_: object) -> float:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(Follower, "_pause", fail)
    follow(0.05)
    wait_for(lambda: counted.synced > 2, lambda: "it does not ask again")
