"""What all tests share: the CIFAR-10 archive and the Docker engine, where they are there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """Return the path of ``cifar-10-python.tar.gz``, which the variable DARKROOM_CIFAR10 names."""
    name = os.environ.get("DARKROOM_CIFAR10")
    if not name:
        pytest.skip("DARKROOM_CIFAR10 does not name cifar-10-python.tar.gz")
    archive = Path(name)
    if not archive.is_file():
        pytest.fail(f"DARKROOM_CIFAR10 is {name!r}, and there is no such file")
    return archive


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skip where containers cannot be run."""
    reason = _missing_docker()
    if reason:
        pytest.skip(reason)


def _missing_docker() -> str | None:
    """Say what is missing to run containers, or None where nothing is."""
    if not shutil.which("docker"):
        return "there is no docker command"
    for command, missing in (
        (["docker", "info"], "no Docker engine answers"),
        (["docker", "compose", "version"], "Docker has no Compose plugin"),
    ):
        if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode:
            return missing
    return None
