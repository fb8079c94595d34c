"""promtool, which checks Prometheus' rules and plays series of metrics to them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool(root: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    """Runs promtool in the repository's root: this machine's, or that of the image that Compose starts.

    It sees the folders that tests make as well, at their own places.
    """
    command = ["promtool"]
    if not shutil.which("promtool"):
        request.getfixturevalue("docker_engine")
        made = tmp_path_factory.getbasetemp()
        made.chmod(0o755)  # the image has a user of its own
        mounts = ["--volume", f"{root}:/repository:ro", "--volume", f"{made}:{made}:ro", "--workdir", "/repository"]
        command = ["docker", "run", "--rm", "--network", "none", *mounts, "--entrypoint", "promtool", _image(root)]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=root, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def _image(root: Path) -> str:
    command = ["docker", "compose", "--profile", "monitoring", "config", "--format", "json"]
    config = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    image: str = yaml.safe_load(config)["services"]["prometheus"]["image"]
    return image
