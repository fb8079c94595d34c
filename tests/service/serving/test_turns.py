"""Requests that a parser reads begin in turns of their addresses, and the event loop goes on meanwhile."""

import gevent
from gevent import socket

from service.serving.loop import Loop
from service.serving.turns import _AT_ONCE, Turns
from tests.service.loops import on_a_loop

CROWD = 10 * _AT_ONCE


def test_nobody_waits_for_a_crowd_from_another_address() -> None:
    """One that comes while hundreds from one address wait begins with the first of those."""

    def work(_: Loop) -> list[int]:
        def begin(address: str) -> None:
            before = len(order)
            turns.wait(address)
            waited[address] = len(order) - before
            order.append(address)

        turns, order, waited = Turns(), list[str](), dict[str, int]()
        gevent.joinall([gevent.spawn(begin, address) for address in [*["crowd"] * CROWD, "other", "third"]])
        return [len(order), waited["other"], waited["third"]]

    begun, *waited = on_a_loop(work)
    assert begun == CROWD + 2
    assert max(waited) < 2 * _AT_ONCE


def test_the_loop_looks_at_its_sockets_between_turns() -> None:
    """What arrives while a crowd begins is seen before all of it has begun."""

    def work(_: Loop) -> int:
        def begin() -> None:
            turns.wait("crowd")
            begun.append(None)
            if len(begun) == 1:
                ours.sendall(b"x")

        def read() -> None:
            theirs.recv(1)
            seen.append(len(begun))

        turns, begun, seen = Turns(), list[None](), list[int]()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            gevent.joinall([gevent.spawn(read), *(gevent.spawn(begin) for _ in range(CROWD))])
        return seen[0]

    assert on_a_loop(work) <= 3 * _AT_ONCE


def test_one_that_leaves_keeps_nobody_from_a_turn() -> None:
    """A connection that is ended while it waits takes no other's turn away."""

    def work(_: Loop) -> tuple[int, int]:
        def begin() -> None:
            come.append(None)
            turns.wait("crowd")
            begun.append(None)

        turns, come, begun = Turns(), list[None](), list[None]()
        greenlets = [gevent.spawn(begin) for _ in range(CROWD)]
        while len(come) < CROWD:
            gevent.sleep(0)
        waiting = [greenlet for greenlet in greenlets if not greenlet.dead]
        gevent.killall(waiting[::2])
        gevent.joinall(greenlets)
        return len(waiting[::2]), len(begun)

    left, begun = on_a_loop(work)
    assert left > 0
    assert begun == CROWD - left
