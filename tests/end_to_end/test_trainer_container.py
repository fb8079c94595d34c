"""The trainer's image as people run it: a version comes out of it, and the running service takes it up."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from artifact import validate
from tests.drawings import drawing
from tests.end_to_end.conftest import CUDA_IMAGE, PYTHON_IMAGE, Project, assert_labels, files_in, owned_by_somebody
from tests.photographs import photographs
from tests.service.pictures import encoded
from training.data import synthetic

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.containers]

TRAIN_SECONDS = 420.0
RUN = ("--profile", "train-cpu", "run")
LONG = ("--preset", "smoke", "--epochs", "500")  # nobody waits for its end


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


def assert_owner(version: Path, user: int) -> None:
    """Find that all of a version belongs to ``user``, and may be read by everybody."""
    for path in [version, *version.rglob("*")]:
        information = path.stat()
        assert information.st_uid == user, path
        assert information.st_mode & 0o004, path


def wait_for_line(project: Project, container: str, part: str) -> None:
    """Wait until a container has printed ``part``."""
    deadline = time.monotonic() + TRAIN_SECONDS
    while part not in (printed := project.docker("logs", container)):
        if time.monotonic() > deadline or not project.inspect(container)["State"]["Running"]:
            pytest.fail(f"it did not print {part!r}:\n{printed}")
        time.sleep(0.5)


def test_what_the_trainer_publishes_is_served_without_a_restart(serving: Project, model_folder: Path) -> None:
    """The README's command trains in the container, and the service next to it answers rightly with the new version."""
    owner = owned_by_somebody(model_folder)
    arguments = ["--preset", "smoke", "--name", "colours"]
    output = serving.compose(*RUN, "--rm", "--no-TTY", "trainer-cpu", *arguments, timeout=TRAIN_SECONDS)
    assert validate(model_folder / "colours" / "2").name == "colours"
    wait_for_version(serving, 2)
    for shape in ("disc", "square", "stripes"):
        result = answer(serving, shape)
        assert result["model"] == {"name": "colours", "version": 2}
        assert result["predictions"][0]["label"] == shape
    assert not [entry.name for entry in (model_folder / "colours").iterdir() if not entry.name.isdigit()]
    assert output.count("Training on the CPU, without a GPU.") == 1, output
    assert_owner(model_folder / "colours" / "2", owner)


def test_a_folder_of_pictures_becomes_a_model_that_is_served(
    serving: Project, model_folder: Path, tmp_path: Path
) -> None:
    """One's own pictures end in a service that answers with their labels, whoever trains.

    ``docker run --user`` publishes files that belong to that user and that the service's user can read.
    """
    model_folder.chmod(0o777)
    (model_folder / "colours").chmod(0o777)
    user = 23456
    shapes, drawn, _ = synthetic.load(600, 1, seed=0)
    for number, (pixels, index) in enumerate(zip(drawn.images, drawn.classes, strict=True)):
        path = tmp_path / "pictures" / f"a {shapes[index]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    mounts = ["-v", f"{tmp_path / 'pictures'}:/data:ro", "-v", f"{model_folder}:/models"]
    image = serving.image("trainer_cpu")
    command = [image, "--data", "/data", "--name", "colours", "--preset", "smoke", "--epochs", "6"]
    serving.docker("run", "--rm", "--user", f"{user}:{user}", *mounts, *command, timeout=TRAIN_SECONDS)
    assert_owner(model_folder / "colours" / "2", user)
    assert validate(model_folder / "colours" / "2").labels == ("a disc", "a square", "a stripes")
    wait_for_version(serving, 2)
    for shape in shapes:
        assert answer(serving, shape)["predictions"][0]["label"] == f"a {shape}"
    if os.geteuid() != 0:
        serving.docker("run", "--rm", *mounts, "--entrypoint", "rm", image, "-rf", "/models/colours/2")


def test_photographs_are_trained_without_a_network(project: Project, model_folder: Path, tmp_path: Path) -> None:
    """The README's command for one's own photographs needs no network: the image holds the pretrained weights."""
    owner = owned_by_somebody(model_folder)
    rng = np.random.default_rng(0)
    for label, photograph in zip(("palace", "flower"), photographs(), strict=False):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(20):
            left, top = (int(rng.integers(0, side - 240)) for side in photograph.size)
            part = photograph.crop((left, top, left + 240, top + 240))
            if number % 4:
                part.save(tmp_path / "photos" / label / f"{number}.jpg")
            else:  # as telephones take them
                (tmp_path / "photos" / label / f"{number}.HEIC").write_bytes(encoded(part, "HEIF"))
    mounts = ["-v", f"{tmp_path / 'photos'}:/data:ro", "-v", f"{model_folder}:/models"]
    command = [project.image("trainer_cpu"), "--data", "/data", "--name", "photos"]
    output = project.docker("run", "--rm", "--network", "none", *mounts, *command, timeout=TRAIN_SECONDS)
    assert_owner(model_folder / "photos" / "1", owner)
    metadata = validate(model_folder / "photos" / "1")
    assert metadata.labels == ("flower", "palace")
    assert metadata.training["backbone"] == "EfficientNetLite2"
    assert metadata.int8 is not None
    assert metadata.int8.accuracy > 0.9
    assert "Not tuned" in output


def test_a_wrong_option_is_an_error_and_leaves_nothing(project: Project, model_folder: Path) -> None:
    """An unknown preset ends the container with an exit code that scripts see, a message, and an untouched folder."""
    image = project.image("trainer")
    mount = f"{model_folder}:/models"
    output = project.docker("run", "--rm", "-v", mount, image, "--preset", "nonsense", check=False)
    assert "nonsense" in output
    assert "smoke" in output
    assert "Traceback" not in output
    assert list(model_folder.iterdir()) == []


def test_without_a_gpu_it_fails_early_and_says_why(project: Project, model_folder: Path) -> None:
    """``docker run trainer`` on a machine that gives it no GPU is exit code 4 and a sentence, before any download."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    command = ("--network", "none", "-v", f"{model_folder}:/models", project.image("trainer"))
    container = project.docker("create", *command).strip()
    try:
        output = project.docker("start", "--attach", container, check=False)
        assert project.inspect(container)["State"]["ExitCode"] == 4, output
    finally:
        project.docker("rm", "--force", container)
    (line,) = output.splitlines()
    assert "--gpus all" in line
    assert line.endswith("or give --cpu to train on the CPU")
    assert list(model_folder.iterdir()) == []


def test_what_needs_no_gpu_runs_without_one(project: Project, shared_models: Path) -> None:
    """Help and the commands for published versions ask for no GPU."""
    mount = f"{shared_models}:/models:ro"
    image = project.image("trainer")
    assert "--cpu" in project.docker("run", "--rm", image, "--help")
    picture = "/models/colours/1/assets.extra"
    output = project.docker("run", "--rm", "-v", mount, image, "predict", "/models/colours/1", picture, check=False)
    assert "GPU" not in output


def test_a_stopped_training_says_how_to_go_on_and_goes_on(project: Project, model_folder: Path) -> None:
    """``docker stop`` keeps the epochs that are done, in a volume, and the command that is printed resumes them.

    No process of the container is root's, which has to be so for the signal to arrive where no capability is left.
    """
    owner = owned_by_somebody(model_folder)
    command = [*RUN, "--detach", "--no-TTY", "trainer-cpu", *LONG]
    container = project.compose(*command).split()[-1]
    wait_for_line(project, container, "epoch 2/500")
    processes = project.docker("top", container, "-o", "uid,pid").splitlines()[1:]
    assert {line.split()[0] for line in processes} == {str(owner)}
    project.docker("stop", container)
    assert project.inspect(container)["State"]["ExitCode"] == 143
    told = "docker compose --profile train-cpu run --rm trainer-cpu --preset smoke --epochs 500"
    assert project.docker("logs", container).splitlines()[-1] == (
        f"Stopped by SIGTERM. This goes on from the last epoch: {told}"
    )
    again = project.compose(*command).split()[-1]
    wait_for_line(project, again, "Resuming /runs/smoke after epoch ")
    project.docker("kill", "--signal", "INT", again)
    assert project.docker("wait", again).strip() == "130"
    assert "Stopped by SIGINT." in project.docker("logs", again)
    assert list(model_folder.iterdir()) == []


def test_without_a_volume_a_stopped_training_names_its_container(project: Project) -> None:
    """Where nothing is mounted, only the container itself has the checkpoints, and starting it again resumes."""
    container = project.docker("run", "--detach", project.image("trainer"), "--cpu", *LONG).strip()
    try:
        wait_for_line(project, container, "epoch 1/500")
        project.docker("stop", container)
        told = project.docker("logs", container).splitlines()[-1]
        assert f"docker start --attach {container[:12]} goes on" in told
        project.docker("start", container)
        wait_for_line(project, container, "Resuming /runs/smoke after epoch ")
        status = project.docker("exec", container, "cat", "/proc/1/status")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert set(fields["Uid"].split()) == {"10001"}
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert fields["NoNewPrivs"].strip() == "1"
    finally:
        project.docker("rm", "--force", container)


def test_without_the_right_to_become_the_owner_it_says_what_to_add(project: Project, model_folder: Path) -> None:
    """Root without capabilities could not write to the folder; the message has the option that can."""
    owner = owned_by_somebody(model_folder)
    if owner == 0:
        pytest.skip("only root can give the folder to another user")
    mount = f"{model_folder}:/models"
    output = project.docker(
        "run", "--rm", "--cap-drop", "ALL", "-v", mount, project.image("trainer"), "--help", check=False
    )
    assert f"--user {owner}:{model_folder.stat().st_gid}" in output


def test_the_image_has_what_tensorflow_was_built_with(project: Project) -> None:
    """CUDA and cuDNN of the image are TensorFlow's, by its own word, and the loader finds each of the libraries."""
    code = """
import ctypes, importlib.metadata, json, pathlib, sys
import tensorflow as tf
build = tf.sysconfig.get_build_info()
site = pathlib.Path(tf.__file__).parents[1]
libraries = ["cuda_runtime/lib/libcudart.so.12", "cublas/lib/libcublas.so.12", "cufft/lib/libcufft.so.11",
             "cusolver/lib/libcusolver.so.11", "cusparse/lib/libcusparse.so.12", "cudnn/lib/libcudnn.so.9",
             "nccl/lib/libnccl.so.2"]
print(json.dumps({
    "build": [build["is_cuda_build"], build["cuda_version"], build["cudnn_version"]],
    "cuda": importlib.metadata.version("nvidia-cuda-runtime-cu12"),
    "cudnn": importlib.metadata.version("nvidia-cudnn-cu12"),
    "missing": [name for name in libraries if not (site / "nvidia" / name).exists()],
    "unloadable": [name for name in libraries if not ctypes.CDLL(str(site / "nvidia" / name))]}))
"""
    output = project.docker("run", "--rm", "--entrypoint", "python", project.image("trainer"), "-c", code)
    found = json.loads(output.splitlines()[-1])
    is_cuda, cuda, cudnn = found["build"]
    assert is_cuda is True
    assert found["missing"] == found["unloadable"] == []
    for built, shipped in ((cuda, found["cuda"]), (cudnn, found["cudnn"])):
        wanted, has = ([int(part) for part in version.split(".")[:2]] for version in (built, shipped))
        assert has[0] == wanted[0]
        assert has[: len(wanted)] >= wanted


def test_without_cuda_it_is_small(project: Project) -> None:
    """The trainer for processors has none of NVIDIA's libraries, and takes less than two gigabytes of a disk."""
    image = project.image("trainer_cpu")
    assert files_in(project, image, "/venv/lib -maxdepth 4 -name nvidia*") == set()
    size = project.inspect(image)["Size"]
    print(f"{size / 1e9:.2f} GB")
    assert size < 2e9


@pytest.mark.parametrize(("kind", "base"), [("trainer", CUDA_IMAGE), ("trainer_cpu", PYTHON_IMAGE)])
def test_nothing_lies_about_in_the_trainers_image(project: Project, kind: str, base: str) -> None:
    """It has labels, and no setuid program, no compiler, no cache of pip or apt; pip itself is not in it."""
    image = project.image(kind)
    assert_labels(project.inspect(image), "Darkroom trainer")
    assert files_in(project, image, "/ -xdev -type f -perm /6000") == set()
    assert files_in(project, image, "/venv/lib -maxdepth 3 -name pip") == set()
    compilers = "/usr/bin /bin /usr/local/bin ( -name gcc -o -name g++ -o -name cc -o -name make )"
    assert files_in(project, image, compilers) == set()
    caches = "/root /home /tmp /cache /var/cache/apt /var/lib/apt/lists -type f"
    assert files_in(project, image, caches) <= files_in(project, base, caches)
