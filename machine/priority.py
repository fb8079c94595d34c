"""Let others have the machine first, in a process that may be ended."""

import contextlib
import os
from pathlib import Path

_NICENESS = 5  # a third of what others get of a core that both want
_FIRST_TO_GO = Path("/proc/self/oom_score_adj")


def stand_back() -> None:
    """Let other processes have cores first, and be the first that the kernel ends where memory is short."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # no Linux
        _FIRST_TO_GO.write_text("1000", encoding="ascii")
