"""Publish again and again, and be killed one step later each time: ``python -m tests.reliability.publishing MODELS``.

A step is an operation on the disk: a file opened, a folder made or listed, a change of rights, a sync, a rename. At the
end a line of JSON says how many there are, and how many versions were there after each kill.
"""

import json
import os
import signal
import sys
from pathlib import Path

from artifact import draft, validate, versions
from tests.artifact.conftest import fill
from tests.models import metadata

NAME = "colours"
_EVENTS = ("open", "os.mkdir", "os.rmdir", "os.rename", "os.remove", "os.chmod", "os.listdir", "os.scandir")


def publish(models: Path) -> None:
    """Publish a small version."""
    with draft(models, NAME) as new:
        fill(new)
        new.publish(metadata(NAME))


def _publish_until(step: int, models: Path) -> bool:
    """Publish in a process that is killed before a step, counted from 1; say whether it came to its end before."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _arguments: object = None) -> None:
            nonlocal left
            if event in _EVENTS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        fsync = os.fsync

        def counted_fsync(descriptor: int) -> None:
            count("open")
            fsync(descriptor)

        os.fsync = counted_fsync  # type: ignore[assignment]
        sys.addaudithook(count)
        publish(models)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == 0


def main(models: Path) -> None:
    """Kill at every step, and check after each what a reader sees: whole versions only, and none gone."""
    counts: list[int] = []
    while not _publish_until(len(counts) + 1, models):
        numbers = versions(models, NAME)
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers[-2:]:
            assert validate(models / NAME / str(number)).version == number
        counts.append(len(numbers))
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
