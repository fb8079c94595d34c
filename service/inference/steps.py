"""The steps of a request that is traced: what was done for it, and when. Of all others nothing is noted."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

STEPS: ContextVar["Steps | None"] = ContextVar("steps", default=None)
"""Where the steps of the request that is being answered are noted; None where it is not traced."""

MOST = 96  # of one request: those of 32 parts of a batch


@dataclass(slots=True)
class Step:
    """One thing that was done, with its times by the clock of the request; ``error`` is the class of what it raised."""

    name: str
    started: float
    ended: float
    attributes: dict[str, str | int] = field(default_factory=dict)
    error: str | None = None


class Steps:
    """What was done for one request; told by whichever thread works on it, one at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds, that the batcher has as well."""
        self.taken: list[Step] = []
        self.left_out = 0
        """How many more there were than are kept."""
        self.model: tuple[str, int] | None = None
        """The name and the version of the model that answers, once that is known."""
        self._clock = clock
        self._decoding: Step | None = None

    def note(self, step: Step) -> None:
        """Keep ``step``, if there is room for it."""
        if len(self.taken) < MOST:
            self.taken.append(step)
        else:
            self.left_out += 1

    def timed(self, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """Note the block as a step."""
        step = Step(name, self._clock(), 0.0, attributes)
        self.note(step)
        return self._until_its_end(step)

    def decoding(self) -> AbstractContextManager[None]:
        """Note the block, which decodes one picture, in the step of all that are decoded for the same part."""
        step = self._decoding
        if step is None:
            step = self._decoding = Step("decode", self._clock(), 0.0, {"images": 0})
            self.note(step)
        step.attributes["images"] = int(step.attributes["images"]) + 1
        return self._until_its_end(step)

    def end_part(self) -> None:
        """Note that the pictures of a part are decoded; those that follow have a step of their own."""
        self._decoding = None

    @contextmanager
    def _until_its_end(self, step: Step) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            step.error = step.error or type(error).__name__
            raise
        finally:
            step.ended = self._clock()


def timed(name: str, **attributes: str | int) -> AbstractContextManager[None]:
    """Note the block as a step of the request that is being answered, if that is traced."""
    steps = STEPS.get()
    return nullcontext() if steps is None else steps.timed(name, **attributes)
