"""What made a version: when, from which revision of the code, with which libraries."""

import datetime
import os
import subprocess
import sys
from pathlib import Path

_LIBRARIES = ("keras", "numpy", "openvino", "nncf", "tensorflow", "jax", "torch")


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def revision() -> str:
    """Return the revision of the code, with ``-dirty`` where it was changed; ``unknown`` outside a checkout."""
    if stamped := os.environ.get("DARKROOM_REVISION"):
        return stamped
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that this process has loaded, of those that make a network."""
    loaded = ((name, sys.modules.get(name)) for name in _LIBRARIES)
    return {name: module.__version__ for name, module in loaded if module}
