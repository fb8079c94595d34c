"""Let others have the machine first: a process that may be ended, or a thread."""

import contextlib
import os
import sys
import threading
from pathlib import Path

_NICENESS = 5  # a third of what others get of a core that both want
_FIRST_TO_GO = Path("/proc/self/oom_score_adj")


def stand_back() -> None:
    """Let other processes have cores first, and be the first that the kernel ends where memory is short."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # no Linux
        _FIRST_TO_GO.write_text("1000", encoding="ascii")


def thread_stands_back(niceness: int) -> None:
    """Let other threads have cores before the calling one, by a ``niceness`` of up to 19; only Linux can do that."""
    if sys.platform == "linux":  # elsewhere it would be that of the process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
