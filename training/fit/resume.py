"""How an interrupted training is gone on with: the exact command, where that is known."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

_COMMAND = "DARKROOM_COMMAND"  # what starts the trainer, set by docker-compose.override.yml
_CONTAINER = "DARKROOM_CONTAINER"  # set by the trainer's image


def how_to_resume(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, hostname: str) -> str:
    """Return a sentence that says how to go on with the training whose checkpoints are under ``folder``.

    ``arguments`` are those of the command line, and ``hostname`` that of a container is its id unless it was given one.
    """
    if command := environment.get(_COMMAND):
        return f"This goes on from the last epoch: {shlex.join([*shlex.split(command), *arguments])}"
    if environment.get(_CONTAINER) and not _outlives_the_container(folder):
        return (
            f"Its checkpoints are in this container, in no volume: docker start --attach {hostname} goes on from the "
            "last epoch, unless the container was started with --rm."
        )
    return "Give the same command again to go on from the last epoch."


def _outlives_the_container(folder: Path) -> bool:
    """Say whether ``folder`` lies in something that is mounted."""
    path = folder.absolute()
    return any(parent.is_mount() for parent in (path, *path.parents) if parent != Path(path.anchor))
