"""``python -m service.inference.trial``: the process in which a version is loaded to see what comes of it.

It costs nobody anything if it takes too much or dies: it holds no request, and where memory is short, the kernel ends
it before any other. Its argument is a ``Task``, and the last line that it prints an ``Outcome``, both as JSON.
"""

import dataclasses
import gc
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from machine import give_large_blocks_back, stand_back
from service.inference.engine import import_library, load
from service.inference.loading import fault_of, is_passing, load_version
from service.inference.watch import Watch, spare_memory

_PARENT_SECONDS = 0.2


@dataclass(frozen=True)
class Task:
    """A version to try, and how long that may take, in seconds; ``parent`` is the process that waits for it.

    If all goes well, each of ``workers`` will load it, in place of one that took ``replaced`` bytes.
    """

    path: str
    engine: str
    precision: str
    threads: int
    workers: int
    replaced: int
    seconds: float
    parent: int


@dataclass(frozen=True)
class Outcome:
    """What came of it: the fault, or None, and whether that may pass; the bytes of memory that loading took."""

    fault: str | None
    passing: bool = False
    needs: int = 0


def main(task: Task) -> NoReturn:
    """Load the version, let go of it, and end with an outcome."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def end(outcome: Outcome) -> NoReturn:
        answers.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        answers.flush()
        os._exit(0)

    stand_back()
    _end_with(task.parent)
    give_large_blocks_back()
    import_library(task.engine)  # what that takes the workers have taken already
    most = spare_memory(task.workers, task.replaced)
    with Watch(most, task.seconds, lambda fault: end(Outcome(fault, passing=True))) as watch:
        fault = _fault(task)
        gc.collect()  # a version that dies when it is let go of does so here
    end(fault or Outcome(None, needs=watch.taken))


def _fault(task: Task) -> Outcome | None:
    try:
        load_version(Path(task.path), lambda path: load(task.engine, path, task.precision, task.threads))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the trial is for
        return Outcome(fault_of(error), is_passing(error))
    return None


def _end_with(parent: int) -> None:
    """End where the process that waits for this one ends."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])))
