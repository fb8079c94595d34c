"""The trainer's image as people run it: a version comes out of it, and the running service takes it up."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from artifact import validate
from tests.drawings import drawing
from tests.end_to_end.conftest import Project
from training import synthetic

pytestmark = [pytest.mark.slow, pytest.mark.containers]

TRAIN_SECONDS = 420.0


def answer(project: Project, shape: str) -> Any:
    """Post a drawing and return the answer."""
    response = requests.post(
        f"{project.url()}/predict", data=drawing(shape), headers={"Content-Type": "image/png"}, timeout=30
    )
    assert response.status_code == 200, response.text
    return response.json()


def wait_for_version(project: Project, version: int) -> None:
    """Wait until the service serves ``version``."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if requests.get(f"{project.url()}/model", timeout=10).json()["version"] == version:
            return
        time.sleep(0.2)
    pytest.fail(f"version {version} is not served after 60 s:\n{project.compose('logs', 'service')}")


def test_what_the_trainer_publishes_is_served_without_a_restart(serving: Project, model_folder: Path) -> None:
    """The README's command trains in the container, and the service next to it answers rightly with the new version."""
    arguments = ["--preset", "smoke", "--name", "colours"]
    output = serving.compose(
        "--profile", "train", "run", "--rm", "--no-TTY", "trainer", *arguments, timeout=TRAIN_SECONDS
    )
    assert validate(model_folder / "colours" / "2").name == "colours"
    wait_for_version(serving, 2)
    for shape in ("disc", "square", "stripes"):
        result = answer(serving, shape)
        assert result["model"] == {"name": "colours", "version": 2}
        assert result["predictions"][0]["label"] == shape
    assert not [entry.name for entry in (model_folder / "colours").iterdir() if not entry.name.isdigit()]
    if not Path("/dev/nvidiactl").exists():
        lines = [line for line in output.splitlines() if "No GPU was found" in line]
        assert len(lines) == 1, output


def test_a_folder_of_pictures_becomes_a_model_that_is_served(
    serving: Project, model_folder: Path, tmp_path: Path
) -> None:
    """The README's command for one's own pictures ends in a service that answers with their labels."""
    shapes, drawn, _ = synthetic.load(600, 1, seed=0)
    for number, (pixels, index) in enumerate(zip(drawn.images, drawn.classes, strict=True)):
        path = tmp_path / "pictures" / f"a {shapes[index]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    mounts = ["-v", f"{tmp_path / 'pictures'}:/data:ro", "-v", f"{model_folder}:/models"]
    command = [serving.image("trainer"), "--data", "/data", "--name", "colours", "--preset", "smoke", "--epochs", "6"]
    serving.docker("run", "--rm", *mounts, *command, timeout=TRAIN_SECONDS)
    assert validate(model_folder / "colours" / "2").labels == ("a disc", "a square", "a stripes")
    wait_for_version(serving, 2)
    for shape in shapes:
        assert answer(serving, shape)["predictions"][0]["label"] == f"a {shape}"


def test_any_user_can_train_without_compose(project: Project, model_folder: Path) -> None:
    """``docker run --user`` publishes files that belong to that user and that the service's user can read."""
    model_folder.chmod(0o777)
    user = 23456
    mount = f"{model_folder}:/models"
    image = project.image("trainer")
    project.docker(
        "run", "--rm", "--user", f"{user}:{user}", "-v", mount, image, "--preset", "smoke", timeout=TRAIN_SECONDS
    )
    version = model_folder / "smoke" / "1"
    assert validate(version).labels == ("disc", "square", "stripes")
    for path in [version, *version.rglob("*")]:
        information = path.stat()
        assert information.st_uid == user, path
        assert information.st_mode & 0o004, path
    if os.geteuid() != 0:
        project.docker("run", "--rm", "-v", mount, "--entrypoint", "rm", image, "-rf", "/models/smoke")


def test_a_wrong_option_is_an_error_and_leaves_nothing(project: Project, model_folder: Path) -> None:
    """An unknown preset ends the container with an exit code that scripts see, a message, and an untouched folder."""
    image = project.image("trainer")
    mount = f"{model_folder}:/models"
    output = project.docker("run", "--rm", "-v", mount, image, "--preset", "nonsense", check=False)
    assert "nonsense" in output
    assert "smoke" in output
    assert "Traceback" not in output
    assert list(model_folder.iterdir()) == []
