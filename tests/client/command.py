"""The command as its users run it: a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.service.running import ROOT

PATIENCE = 60.0  # seconds; machines that run tests are busy
# A process's peak begins with that of the one it was forked from, which here is small.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


class Darkroom:
    """Runs ``python -m client`` in one folder, with nothing of this process's environment but its PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(
        self, *arguments: str | bytes | Path, stdin: bytes = b"", measured: bool = False, **environment: str
    ) -> Any:
        """Run the command to its end; return a ``CompletedProcess`` of bytes.

        ``measured`` adds a line to stderr with the most memory that it had, in KiB on Linux and bytes on macOS.
        """
        prefix = (sys.executable, "-c", _MEASURE) if measured else ()
        process = self.begin(*arguments, stdin=subprocess.PIPE, prefix=prefix, **environment)
        stdout, stderr = process.communicate(stdin, PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def begin(
        self,
        *arguments: str | bytes | Path,
        stdin: int = subprocess.DEVNULL,
        prefix: tuple[str, ...] = (),
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start the command, as arguments of ``prefix`` if that is given.

        ``stdout`` and ``stderr`` are pipes unless told; other options are its environment.
        """
        streams = {name: options.pop(name, subprocess.PIPE) for name in ("stdout", "stderr")}
        process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "error", "-m", "client", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(self.folder), **options},
            stdin=stdin,
            start_new_session=True,
            **streams,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs, and close what was opened to it."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            with process:  # waits, and closes its pipes
                pass
