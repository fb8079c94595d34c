"""Measures the most memory that a process had: ``python -m tests.peak FILE COMMAND...`` writes it into FILE, in bytes.

A process's peak begins with that of the one that it was forked from, which may be a run of tests; here it is small.
"""

import resource
import subprocess
import sys
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def main(file: str, *command: str) -> int:
    """Run ``command``; write the most memory that it had, and its seconds of processor time; return its exit status."""
    code = subprocess.run(command, check=False).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(file).write_text(f"{used.ru_maxrss * _UNIT} {used.ru_utime + used.ru_stime}")
    return code


def peak_of(file: Path) -> tuple[int, float]:
    """Return what was written into ``file``: bytes of memory, and seconds of processor time."""
    size, seconds = file.read_text().split()
    return int(size), float(seconds)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
