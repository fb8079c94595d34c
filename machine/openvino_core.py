"""OpenVINO's handle on the processor, of which a process has one."""

import functools
import importlib
import sys
from typing import Any


@functools.cache
def openvino_core() -> Any:
    """Return this process's only OpenVINO core, which is never freed.

    With its first model a core gives the thread that loads it a stack for signals, and takes the memory back when it is
    freed, although the thread still points there where another core, or another thread, came in between. A signal that
    this thread gets then kills the process; see ``tests/service/inference/test_engine.py``.
    """
    return import_openvino().Core()


def import_openvino() -> Any:
    """Import OpenVINO without the package that reports its use to its maker, whether or not that is installed."""
    # An entry of None makes the import fail, and OpenVINO then does without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")
