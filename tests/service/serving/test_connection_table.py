"""Who goes where a worker has as many connections as it may: the least progressed, and nobody who is being answered."""

import time
from dataclasses import dataclass

import gevent

from service.serving.connection_table import ConnectionTable
from service.serving.loop import Loop
from tests.service.loops import on_a_loop


@dataclass(eq=False)
class Kept:
    """A connection that waits for its client for some seconds."""

    name: str
    seconds: float
    address: str | None = "192.0.2.1"
    answered: bool = False
    waits: bool = True
    idle: bool = True
    unsent: int = 0

    def __post_init__(self) -> None:
        self.since = time.monotonic() - self.seconds
        self.gone = False

    def let_go(self) -> None:
        """Note it."""
        self.gone, self.waits = True, False

    def hang_up(self) -> None:
        """Note it."""
        self.gone = True


def who_goes(*connections: Kept, more: int) -> list[str]:
    """Return the names of those that go, one after the other, where ``more`` come and all places are taken."""
    table = ConnectionTable(len(connections), most_unsent=1)
    for connection in connections:
        table.add(connection)
    order: list[str] = []
    for _ in range(more):
        table.make_room()
        for gone in [each for each in connections if each.gone and each.name not in order]:
            order.append(gone.name)
            table.remove(gone)
            table.add(Kept("newcomer", 0, waits=False))
    return order


def test_the_oldest_stranger_goes_first() -> None:
    """Of those that were never answered the one that waits longest goes; those that were answered are kept."""
    kept = Kept("kept", 70, answered=True)
    assert who_goes(kept, Kept("b", 5), Kept("a", 9), Kept("c", 3), more=3) == ["a", "b", "c"]


def test_whoever_has_just_come_is_kept() -> None:
    """A connection of this moment, whose request is on its way, outlives one that has been idle since its answer."""
    assert who_goes(Kept("new", 0.1), Kept("idle", 30, answered=True), more=1) == ["idle"]


def test_the_address_with_the_most_loses_first() -> None:
    """One address that takes the most places loses its own, down to what others have."""
    many = [Kept(f"many {number}", 5 - number, "192.0.2.9") for number in range(3)]
    assert who_goes(Kept("other", 9), *many, more=3) == ["many 0", "many 1", "other"]


def test_who_is_being_answered_is_kept() -> None:
    """A connection that waits for the service stays; where all do, nobody goes."""
    busy = Kept("busy", 9, waits=False)
    assert who_goes(busy, Kept("idle", 1, answered=True), more=2) == ["idle"]
    assert who_goes(busy, more=1) == []


def test_who_made_progress_since_is_kept() -> None:
    """A connection that was to go next, and that was heard of meanwhile, is passed over."""
    first, second = Kept("first", 9), Kept("second", 8)
    table = ConnectionTable(2, most_unsent=1)
    for connection in (first, second, Kept("third", 7)):
        table.add(connection)
    table.make_room()
    table.remove(first)
    second.since = time.monotonic()
    table.make_room()
    assert (first.gone, second.gone) == (True, False)


def test_only_who_was_idle_for_long_is_hung_up_on() -> None:
    """Idle connections end after their time; one that is in the middle of a request is not idle."""
    old, new, busy = Kept("old", 80), Kept("new", 5), Kept("busy", 80, idle=False)
    table = ConnectionTable(10, most_unsent=1)
    for connection in (old, new, busy):
        table.add(connection)
    table.hang_up(75)
    assert [each.gone for each in (old, new, busy)] == [True, False, False]
    assert len(table) == 3


def test_the_slowest_reader_goes_where_too_much_is_unsent() -> None:
    """Answers that nobody takes are bounded together: above that the one that has not read for longest goes."""

    def work(_: Loop) -> None:
        table = ConnectionTable(10, most_unsent=1000)
        slow, quick, silent = Kept("slow", 9), Kept("quick", 1), Kept("silent", 20)
        for connection in (slow, quick, silent):
            table.add(connection)
        table.note_unsent(slow, 600)
        table.note_unsent(quick, 400)
        gevent.sleep(0)
        assert not slow.gone
        table.note_unsent(quick, 500)
        gevent.sleep(0)
        assert [each.gone for each in (slow, quick, silent)] == [True, False, False]

    on_a_loop(work)
