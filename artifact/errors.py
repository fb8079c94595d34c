"""What can be wrong with a model version."""

from pathlib import Path


class InvalidVersion(Exception):
    """A folder is not a model version that can be trusted; the message names the file and the fault."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path
        self.fault = fault
