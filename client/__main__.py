"""The entry point of ``python -m client`` and of the command ``darkroom``."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from client.cli import NOTHING_DONE, main

_COMMAND = "darkroom"


def run() -> None:
    """Run the command line and end the process with its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    called = Path(sys.argv[0]).name
    code = main(sys.argv[1:], os.environ, _COMMAND if called == _COMMAND else "python -m client")
    if code >= NOTHING_DONE:
        # Threads may still wait for an answer that nobody wants; the interpreter would wait for them.
        with contextlib.suppress(OSError):  # a full disk was told already
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
