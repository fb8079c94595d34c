"""What becomes of freed memory."""

import platform
import subprocess
import sys

import pytest


def _pages_cleared(first: str) -> int:
    """Run ``first``, then take and free 100 MB four times in a thread; return the pages got from the system."""
    lines = f"""
import resource, threading
from machine import keep_freed_memory
{first}
def take(times):
    for _ in range(times):
        b"x" * 100_000_000
def work():
    take(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    take(4)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    return int(subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")
def test_freed_memory_is_taken_again() -> None:
    """glibc by itself gets what was freed from the system again, page by page; now hardly a page comes from there."""
    assert _pages_cleared("keep_freed_memory()") < _pages_cleared("") / 10
