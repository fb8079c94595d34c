"""What can be wrong with a model version."""

from pathlib import Path


class InvalidVersion(Exception):
    """A folder is not a model version that can be trusted; the message names the file and the fault."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path
        self.fault = fault


UNREACHABLE, DENIED, MISSING, DAMAGED, NO_SPACE, UNEXPECTED = REASONS = (
    *("unreachable", "denied", "missing", "damaged", "no_space", "unexpected"),
)
"""Why a source fails: network or server; its credentials; nothing is there; what is there; the disk; none of these."""


class SourceFails(Exception):
    """Versions cannot be had from a place outside, or brought there; the message says why, and what to do.

    ``reason`` is one of ``REASONS``. No message has a credential in it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stopped(Exception):
    """Somebody asked for an end while a source was waited for."""
