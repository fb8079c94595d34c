"""Pictures are kept beside the answers: bounded, never in their way, and a disk that fails is a count."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.captures.choice import Choice
from service.captures.errors import FolderFails
from service.captures.folder import CaptureFolder
from service.captures.keeper import Keeper
from service.inference.errors import QueueFull
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from tests.models import metadata
from tests.service.pictures import plain

Make = Callable[..., tuple[Keeper, Counter[str]]]

SURE, DOUBTFUL = np.array([0.9, 0.1, 0.0], np.float32), np.array([0.4, 0.35, 0.25], np.float32)


class Model:
    """What is looked at of a model that answers."""

    name, version, metadata = "colours", 1, metadata("colours")


class Observer:
    """Counts outcomes."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def captured(self, outcome: str, pictures: int = 1) -> None:
        """Count."""
        self.outcomes[outcome] += pictures


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes what keeps pictures in the test's folder, with what it counted."""
    with ExitStack() as stack:

        def begin(
            *, share: float = 1.0, most_bytes: int = 10**6, opened: Callable[[], CaptureFolder] | None = None
        ) -> tuple[Keeper, Counter[str]]:
            observer = Observer()
            folder = opened or (lambda: CaptureFolder(tmp_path, tmp_path / "reviewed", 10**7, 86_400.0))
            keeper = Keeper(folder, Choice(share, 0.2), observer, lambda: "an-id", most_bytes)
            stack.callback(keeper.close)
            return keeper, observer.outcomes

        yield begin


def offer(keeper: Keeper, *contents: bytes, output: Any = SURE) -> None:
    """Offer pictures that were answered."""
    keeper.offer(cast(LoadedModel, Model()), [Item(content) for content in contents], [output] * len(contents))


def pictures(folder: Path) -> int:
    """Return how many pictures wait."""
    return len(list(folder.glob("waiting/*.png")))


def test_what_is_offered_is_written_by_another_thread(make: Make, tmp_path: Path) -> None:
    """All of it, once each, and what came is counted."""
    keeper, outcomes = make()
    keeper.start()
    offer(keeper, plain("red"), plain("lime"))
    offer(keeper, plain("red"))
    assert keeper.flush(10)
    assert pictures(tmp_path) == 2
    assert outcomes == {"kept": 2, "duplicate": 1}


def test_what_waits_is_written_before_the_end(make: Make, tmp_path: Path) -> None:
    """A worker that stops loses nothing that it took."""
    keeper, outcomes = make()
    keeper.start()
    offer(keeper, *(plain(f"rgb({n}, 0, 0)") for n in range(20)))
    keeper.close()
    assert pictures(tmp_path) == outcomes["kept"] == 20
    offer(keeper, plain("red"))
    assert outcomes["dropped"] == 1


@pytest.mark.parametrize(("asked", "kept"), [(None, 1), ("yes", 1), ("no", 0), (" NO ", 0), ("never", 0), ("", 0)])
def test_who_asks_for_it_has_nothing_kept(make: Make, asked: str | None, kept: int) -> None:
    """Whatever word he writes in the header, and only for his own request."""
    keeper, outcomes = make()
    keeper.start()
    keeper.heed(asked)
    offer(keeper, plain("red"))
    keeper.heed(None)
    assert keeper.flush(10)
    assert outcomes["kept"] == kept
    offer(keeper, plain("blue"))
    assert keeper.flush(10)
    assert outcomes["kept"] == kept + 1


def test_a_slow_disk_keeps_nobody_waiting(make: Make, tmp_path: Path) -> None:
    """While nothing can be written, what fits waits, what does not is counted, and offering stays quick."""
    free = threading.Event()

    def open_late() -> CaptureFolder:
        free.wait(30)
        return CaptureFolder(tmp_path, tmp_path / "reviewed", 10**7, 86_400.0)

    content = [plain(f"rgb({n}, 0, 0)") for n in range(200)]
    room = sum(len(one) + SURE.nbytes + 1024 for one in content[:50])
    keeper, outcomes = make(most_bytes=room, opened=open_late)
    keeper.start()
    begun = time.monotonic()
    for one in content:
        offer(keeper, one)
    assert time.monotonic() - begun < 1
    assert 140 <= outcomes["dropped"] <= 160, "files differ by a byte or two"
    free.set()
    assert keeper.flush(10)
    assert outcomes["kept"] + outcomes["dropped"] == 200
    offer(keeper, plain("blue"))
    assert keeper.flush(10)
    assert outcomes["kept"] + outcomes["dropped"] == 201, "there is room again"


def test_a_disk_that_fails_is_a_count(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, no error comes out, and once it works pictures are kept again."""
    works = False

    def open_perhaps() -> CaptureFolder:
        if not works:
            raise OSError(28, "No space left on device")
        return CaptureFolder(tmp_path, tmp_path / "reviewed", 10**7, 86_400.0)

    keeper, outcomes = make(opened=open_perhaps)
    keeper.start()
    for colour in ("red", "lime"):
        offer(keeper, plain(colour))
        assert keeper.flush(10)
    assert outcomes == {"failed": 2}
    assert caplog.text.count("pictures are not kept") + caplog.text.count("are not tidied up") == 1
    with pytest.raises(FolderFails, match="No space left"), keeper.folder():
        pass
    works = True
    offer(keeper, plain("blue"))
    assert keeper.flush(10)
    assert outcomes["kept"] == pictures(tmp_path) == 1


def test_a_full_disk_in_the_middle_is_a_count(make: Make, tmp_path: Path) -> None:
    """What cannot be written whole leaves no half of it behind."""
    keeper, outcomes = make()
    keeper.start()
    offer(keeper, plain("red"))
    assert keeper.flush(10)
    (tmp_path / "waiting").rename(tmp_path / "gone")  # as if the volume had been unmounted
    offer(keeper, plain("lime"))
    assert keeper.flush(10)
    assert (outcomes["kept"], outcomes["failed"]) == (1, 1)
    (tmp_path / "gone").rename(tmp_path / "waiting")
    offer(keeper, plain("blue"))
    assert keeper.flush(10)
    assert pictures(tmp_path) == outcomes["kept"] == 2


def test_a_stream_of_odd_pictures_is_kept_in_part(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that doubts choose, some a second are enough; chance is not held back, or its share would be unfair."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)
    keeper, outcomes = make(share=0.0)
    offer(keeper, *(plain(f"rgb({n}, 0, 0)") for n in range(100)), output=DOUBTFUL)
    assert outcomes == {"limited": 90}
    by_chance, outcomes = make(share=1.0)
    offer(by_chance, *(plain(f"rgb({n}, 0, 0)") for n in range(100)), output=DOUBTFUL)
    assert outcomes == {}


def test_what_people_report_is_bounded_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten a second of a worker, whatever doubts chose meanwhile; who wants nothing kept has nothing kept."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)
    keeper, outcomes = make(share=0.0)
    offer(keeper, *(plain(f"rgb({n}, 0, 0)") for n in range(20)), output=DOUBTFUL)
    assert outcomes == {"limited": 10}
    model = cast(LoadedModel, Model())
    keeper.heed("no")
    assert not keeper.report(model, Item(plain("lime")), SURE, "green")
    keeper.heed(None)
    for n in range(10):
        assert keeper.report(model, Item(plain(f"rgb(0, {n}, 9)")), SURE, None)
    with pytest.raises(QueueFull, match="try again later"):
        keeper.report(model, Item(plain("blue")), SURE, None)
    assert outcomes == {"limited": 11}
    keeper.start()
    assert keeper.flush(10)
    assert pictures(tmp_path) == outcomes["kept"] == 20


def test_no_memory_to_write_costs_no_later_picture(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on, and what was lost takes no room among those that wait."""
    keeper, outcomes = make(most_bytes=2000)
    keeper.start()
    with monkeypatch.context() as short:

        def fail(_: object) -> None:
            short.undo()
            raise MemoryError

        short.setattr(keeper, "_write", fail)
        offer(keeper, plain("red"))
        assert keeper.flush(10)
    offer(keeper, plain("lime"))
    assert keeper.flush(10)
    assert pictures(tmp_path) == 1
    assert outcomes["kept"] == 1
