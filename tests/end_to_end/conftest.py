"""A real Compose project of its own: its images, its folder of models, its port, and nothing of it left afterwards."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE") or "python:3.13-slim"
CUDA_IMAGE = os.environ.get("CUDA_IMAGE") or "nvidia/cuda:12.6.3-base-ubuntu24.04"
BUILD_SECONDS = 1500.0
SOMEBODY = 23456
LABELS = {
    "created": "2026-01-02T03:04:05Z",
    "revision": "0123456789ab",
    "source": "https://registry.example/darkroom",
    "version": "1.2.3",
}


@dataclass(frozen=True)
class Project:
    """A Compose project: the repository's Compose files under a name and in an environment of its own."""

    root: Path
    name: str
    environment: Mapping[str, str]

    def compose(self, *arguments: str, check: bool = True, timeout: float = 180.0) -> str:
        """Run ``docker compose`` and return what it prints, stdout and stderr together."""
        return _run(["docker", "compose", *arguments], self.root, self.environment, check, timeout)

    def docker(self, *arguments: str, check: bool = True, timeout: float = 180.0) -> str:
        """Run ``docker`` and return what it prints, stdout and stderr together."""
        return _run(["docker", *arguments], self.root, self.environment, check, timeout)

    def container(self) -> str:
        """Return the id of the service's container, running or not."""
        return self.compose("ps", "--all", "--quiet", "service").strip()

    def inspect(self, thing: str) -> Any:
        """Return what Docker knows of a container or an image."""
        return json.loads(self.docker("inspect", thing))[0]

    def url(self) -> str:
        """Return the address of the running service on this machine."""
        port = self.compose("port", "service", "8000").strip().rpartition(":")[2]
        return f"http://127.0.0.1:{port}"

    def image(self, kind: str) -> str:
        """Return the tag of the image of ``service``, ``trainer`` or ``trainer_cpu``."""
        return self.environment[f"{kind.upper()}_IMAGE"]


def _run(command: list[str], root: Path, environment: Mapping[str, str], check: bool, timeout: float) -> str:
    done = subprocess.run(
        command,
        cwd=root,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def files_in(project: Project, image: str, criteria: str) -> set[str]:
    """Return what ``find`` finds in an image, looked at by root."""
    find = ["run", "--rm", "--user", "0:0", "--entrypoint", "find", image, *criteria.split()]
    found = project.docker(*find, check=False).splitlines()
    return {line for line in found if not line.endswith("No such file or directory")}


def owned_by_somebody(folder: Path) -> int:
    """Give ``folder``, and all in it, to a user that no image knows, where this one may; return its owner."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, SOMEBODY, SOMEBODY)
    return folder.stat().st_uid


def assert_labels(image: Any, title: str) -> None:
    """Find the labels of the OCI's image specification on an image, with the values that it was built with."""
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in image["Config"]["Labels"].items()}
    assert labels.pop("description")
    assert {name: labels[name] for name in ("title", "licenses", *LABELS)} == {
        "title": title,
        "licenses": "MIT",
        **LABELS,
    }


@pytest.fixture(scope="session")
def images(root: Path, docker_engine: None) -> Iterator[dict[str, str]]:
    """Build the images under tags of their own, from the base images that this machine has or reaches."""
    tag = f"test-{uuid.uuid4().hex[:8]}"
    variables = {
        "SERVICE_IMAGE": f"darkroom-service:{tag}",
        "TRAINER_IMAGE": f"darkroom-trainer:{tag}",
        "TRAINER_CPU_IMAGE": f"darkroom-trainer-cpu:{tag}",
        "PYTHON_IMAGE": PYTHON_IMAGE,
        "CUDA_IMAGE": CUDA_IMAGE,
        **{name.upper(): value for name, value in LABELS.items()},
    }
    build = ["docker", "compose", "--profile", "train", "--profile", "train-cpu", "build", "--quiet"]
    try:
        _run(build, root, {**os.environ, **variables}, True, BUILD_SECONDS)
        yield variables
    finally:
        tags = [value for name, value in variables.items() if value.endswith(f":{tag}")]
        _run(["docker", "image", "rm", "--force", *tags], root, os.environ, False, 300.0)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Return an empty folder that the containers' users may look into."""
    folder = tmp_path / "models"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def project(root: Path, images: dict[str, str], model_folder: Path) -> Iterator[Project]:
    """A project that is not started yet, on a free port, over ``model_folder``; removed with all that it made."""
    name = f"darkroom-test-{uuid.uuid4().hex[:8]}"
    variables = {
        "COMPOSE_PROJECT_NAME": name,
        "MODELS_DIR": str(model_folder),
        "PORT": "0",
        "MODEL_POLL_SECONDS": "0.5",
    }
    project = Project(root, name, {**os.environ, **images, **variables})
    try:
        yield project
    finally:
        project.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


@pytest.fixture
def serving(project: Project, model_folder: Path, shared_models: Path) -> Project:
    """The project, serving version 1 of the model ``colours``, as ``docker compose up`` starts it."""
    shutil.copytree(shared_models / "colours", model_folder / "colours")
    project.compose("up", "--detach", "--wait", "--no-build")
    return project
