"""The command line: ``python -m training`` trains and publishes, and its commands work with published versions.

Keras and TensorFlow take seconds to import, so a command imports what needs them once its arguments are known to be
good.
"""

import importlib
import keyword
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from artifact import InvalidVersion
from artifact.errors import SourceFails
from training.errors import Interrupted, Interruption, NoGpu, TrainingError, WorseVersion
from training.fit.resume import how_to_resume
from training.names import printable

COMMANDS = (
    "check",
    "compare",
    "evaluate",
    "export",
    "import",
    "predict",
    "quantize",
    "report",
    "study",
)
"""The commands by the names of their modules in ``training.commands``; that of ``import``, a keyword, ends in ``_``."""

_WITHOUT_A_COMMAND = "train"
_WITH_EPOCHS = ("study",)
_NOT_PUBLISHED = 3
_NO_GPU = 4


class Command(Protocol):
    """What a module of ``training.commands`` has that is named here."""

    def parse(self, arguments: Sequence[str]) -> Any:
        """Return the settings that the arguments behind the command's name ask for; SystemExit where they are wrong."""

    def run(self, settings: Any, interruption: Interruption) -> int:
        """Do what ``settings`` ask for and return the exit code; an error is raised as the exceptions of ``main``."""


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    named = bool(arguments) and arguments[0] in COMMANDS
    command = _command(arguments[0] if named else _WITHOUT_A_COMMAND)
    settings = command.parse(arguments[1:] if named else arguments)
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    tell = sys.unraisablehook
    # Where nothing can be raised, as in what runs when an object goes, ``interruption.check`` finds the signal later.
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Interrupted) else tell(lost)
    try:
        return command.run(settings, interruption)
    except WorseVersion as worse:
        print(f"training: not published: {printable(str(worse))}", file=sys.stderr)
        return _NOT_PUBLISHED
    except NoGpu as error:
        return _fail(str(error), _NO_GPU)
    except (TrainingError, InvalidVersion, SourceFails) as error:
        return _fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    except Interrupted as interrupted:
        name = signal.Signals(interrupted.signal_number).name
        folder = getattr(settings, "run", None) or Path(os.environ.get("RUN_DIR") or "runs")
        trains = not named or arguments[0] in _WITH_EPOCHS
        again = "Give the same command again."
        advice = how_to_resume(arguments, os.environ, folder, socket.gethostname()) if trains else again
        print(f"Stopped by {name}. {advice}", file=sys.stderr)
        return 128 + interrupted.signal_number
    finally:
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(name: str) -> Command:
    """Return a command's module; the others are not imported, nor what they need."""
    module = f"{name}_" if keyword.iskeyword(name) else name
    return cast(Command, importlib.import_module(f"training.commands.{module}"))


def _fail(message: str, code: int = 1) -> int:
    print(f"training: error: {printable(message)}", file=sys.stderr)
    return code
