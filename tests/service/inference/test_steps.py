"""The steps of a traced request: timed, bounded, and nothing for all others."""

import itertools

import pytest

from service.inference.steps import MOST, STEPS, Step, Steps, timed


def counting() -> Steps:
    """Return steps by a clock that goes on by a second whenever somebody looks."""
    seconds = itertools.count()
    return Steps(lambda: float(next(seconds)))


def test_pictures_of_one_part_are_one_step() -> None:
    """It begins with the first of them and ends with the last, and counts them; the next part has another one."""
    steps = counting()
    for pictures in (3, 1):
        for _ in range(pictures):
            with steps.decoding():
                pass
        steps.end_part()
    # Of the first picture of a part the clock is looked at twice, of the others once.
    assert steps.taken == [Step("decode", 0, 3, {"images": 3}), Step("decode", 4, 5, {"images": 1})]


def test_what_fails_is_named_and_goes_on_failing() -> None:
    """The error is raised as if nobody looked; of several in a part the first is told, and the time is that of all."""
    steps = counting()
    for error in (ValueError, KeyError):
        with pytest.raises(error), steps.decoding():
            raise error
    with steps.decoding():
        pass
    assert steps.taken == [Step("decode", 0, 3, {"images": 3}, "ValueError")]


def test_there_is_a_bound_on_steps() -> None:
    """A request of very many parts keeps the first ones, and says how many there were more."""
    steps = counting()
    for _ in range(MOST + 5):
        with steps.timed("engine", batch_size=1):
            pass
    assert (len(steps.taken), steps.left_out) == (MOST, 5)


def test_a_block_is_a_step_of_the_request_that_is_traced() -> None:
    """Where none is, it only runs."""
    with timed("engine"):
        pass
    steps = counting()
    token = STEPS.set(steps)
    try:
        with timed("engine", batch_size=1):
            pass
    finally:
        STEPS.reset(token)
    assert steps.taken == [Step("engine", 0, 1, {"batch_size": 1})]
