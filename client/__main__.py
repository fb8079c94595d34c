"""The entry point of ``python -m client``, which ``darkroom predict`` and ``darkroom model`` run."""

import contextlib
import importlib.util
import os
import signal
import sys


def run() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        from client.cli import NOTHING_DONE, main
    except ModuleNotFoundError as missing:
        sys.exit(_how_to_install(missing))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = main(sys.argv[1:], os.environ, "darkroom")
    if code >= NOTHING_DONE:
        # Threads may still wait for an answer that nobody wants; the interpreter would wait for them.
        with contextlib.suppress(OSError):  # a full disk was told already
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _how_to_install(missing: ModuleNotFoundError) -> int:
    """Say how to install what is missing; return the exit code."""
    package = (missing.name or "").partition(".")[0]
    if not package or importlib.util.find_spec(package) is not None:
        raise missing
    print(f"error: the client needs {package}, which is not installed: pip install 'darkroom[client]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    run()
