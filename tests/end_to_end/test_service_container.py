"""The service's image as people run it: ``docker compose up -d --wait``, then answers over HTTP."""

import contextlib
import io
import json
import shutil
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.end_to_end.conftest import BUILD_SECONDS, PYTHON_IMAGE, Project, assert_labels, files_in, owned_by_somebody
from tests.object_store import s3_server
from tests.service.running import free_port, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.containers]

MEBIBYTE = 1024 * 1024


def picture(colour: str) -> bytes:
    """Return a PNG of 48 x 40 pixels in one colour."""
    content = io.BytesIO()
    Image.new("RGB", (48, 40), colour).save(content, "PNG")
    return content.getvalue()


def predict(project: Project, colour: str) -> Any:
    """Post a picture as a form does and return the answer."""
    files = {"image": ("picture.png", picture(colour), "image/png")}
    response = requests.post(f"{project.url()}/predict", files=files, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def test_up_serves_right_answers_and_stops_cleanly(serving: Project) -> None:
    """After ``up --wait`` the service answers rightly at once; ``stop`` ends it with exit code 0, not by a kill."""
    for colour in ("red", "lime", "blue"):
        answer = predict(serving, colour)
        assert answer["success"] is True
        assert answer["model"] == {"name": "colours", "version": 1}
        best = answer["predictions"][0]
        assert best["label"] == {"lime": "green"}.get(colour, colour)
        assert best["probability"] > 0.99

    url = serving.url()
    for route in (
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/model",
        "/model/card",
        "/metrics",
        "/v1/models/colours",
        "/v2/health/ready",
    ):
        assert requests.get(url + route, timeout=10).status_code == 200, route

    container = serving.container()
    serving.compose("stop")
    state = serving.inspect(container)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), serving.docker("logs", container)


def test_it_runs_without_privileges_on_a_read_only_root(serving: Project) -> None:
    """The process is no root, has no capability, and can write nowhere but to /tmp."""
    container = serving.container()
    status = serving.docker("exec", container, "cat", "/proc/1/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    write = "import pathlib, sys; pathlib.Path(sys.argv[1], 'probe').write_text('x')"
    for folder in ("/app", "/models", "/venv"):
        assert "Read-only file system" in serving.docker(
            "exec", container, "python", "-c", write, folder, check=False
        ), folder
    serving.docker("exec", container, "python", "-c", write, "/tmp")  # noqa: S108 - the container's
    predict(serving, "red")


def test_only_the_bundled_model_is_in_the_image(root: Path, docker_engine: None, tmp_path: Path) -> None:
    """Models of one's own lie in the same folder: an image that is pushed with them would give them to everybody."""
    for name in ("artifact", "docker", "imaging", "machine", "models", "requirements", "service"):
        shutil.copytree(root / name, tmp_path / name)
    shutil.copy(root / ".dockerignore", tmp_path)
    for private in ("models/pets/1/saved_model.pb", "models/cifar10/99/saved_model.pb", "models/notes.txt"):
        (tmp_path / private).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / private).write_text("private")
    build = ["docker", "build", "--quiet", "--file", "docker/service.Dockerfile", "--build-arg"]
    build += [f"PYTHON_IMAGE={PYTHON_IMAGE}", "."]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=BUILD_SECONDS, check=True)
    image = done.stdout.strip()
    try:
        find = ["docker", "run", "--rm", "--entrypoint", "find", image, "/models", "-type", "f"]
        found = subprocess.run(find, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, timeout=60, check=False)
    listed = subprocess.run(["git", "ls-files", "models"], cwd=root, capture_output=True, text=True, check=True)
    assert sorted(found) == sorted(f"/{name}" for name in listed.stdout.split())


def test_models_come_from_a_bucket(project: Project, root: Path, tmp_path: Path) -> None:
    """The image has what object stores need; a cache that can be written is all that it takes beside credentials.

    Without that, it says so in a sentence, and stops.
    """
    name = f"{project.name}-sources"
    tmp_path.chmod(0o777)
    with s3_server() as server:
        bucket = server.start()
        bucket.put_version(root / "models" / "cifar10" / "5", "cifar10", 7)
        port = str(free_port())
        settings = {"MODEL_SOURCE": bucket.address, "PORT": port, "HOST": "127.0.0.1", **bucket.environment}
        run = ["run", "--rm", "--name", name, "--network", "host", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108
        run += [part for pair in settings.items() for part in ("--env", "=".join(pair))]
        refused = project.docker(*run, project.image("service"), check=False)
        assert "nothing can be written in MODEL_DIR, '/models': Read-only file system" in refused
        project.docker(*run, "--detach", "--volume", f"{tmp_path}:/models", project.image("service"))

        def serves() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                health = requests.get(f"http://127.0.0.1:{port}/health", timeout=10).json()
                return bool(health["model"] == {"name": "cifar10", "version": 7})
            return False

        try:
            wait_for(serves, lambda: project.docker("logs", name, check=False))
        finally:
            project.docker("rm", "--force", name, check=False)


def test_its_user_can_be_set(project: Project, model_folder: Path, shared_models: Path) -> None:
    """With SERVICE_USER it runs as that user, for models that only they may read."""
    shutil.copytree(shared_models / "colours", model_folder / "colours")
    owner = owned_by_somebody(model_folder)
    model_folder.chmod(0o700)
    own = Project(project.root, project.name, {**project.environment, "SERVICE_USER": f"{owner}:{owner}"})
    own.compose("up", "--detach", "--wait", "--no-build")
    processes = own.docker("top", own.container(), "-o", "uid,pid,cmd").splitlines()[1:]
    assert len(processes) >= 3, processes  # init, gunicorn's master and a worker
    assert {line.split()[0] for line in processes} == {str(owner)}
    predict(own, "red")


def test_its_limits_and_its_log_are_those_of_compose(serving: Project) -> None:
    """Memory and processes are bounded, logs are rotated, and each line that Docker keeps is a JSON object."""
    asked = {"X-Request-ID": "known-1"}
    logging = Project(serving.root, serving.name, {**serving.environment, "ACCESS_LOG": "1", "CPUS": "1"})
    logging.compose("up", "--detach", "--wait", "--no-build")
    assert requests.get(f"{logging.url()}/health", headers=asked, timeout=10).headers["X-Request-ID"] == "known-1"
    container = logging.container()
    host = logging.inspect(container)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (4 * 1024 * MEBIBYTE, 1024, 10**9)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
    assert host["Init"] is True
    entries = [json.loads(line) for line in logging.docker("logs", container).splitlines()]
    (entry,) = (entry for entry in entries if entry.get("path") == "/health" and entry["request_id"] == "known-1")
    assert entry["status"] == 200


def test_the_health_check_fails_while_the_service_answers_5xx(project: Project) -> None:
    """Without a model the service stays up and answers 503, and Docker's health check takes that for a failure."""
    project.compose("up", "--detach", "--no-build")
    container = project.container()
    probe = _first_probe(project, container)
    assert probe["ExitCode"] == 1
    assert "503" in probe["Output"]
    state = project.inspect(container)["State"]
    assert state["Running"] is True
    assert state["Health"]["Status"] != "healthy"
    assert requests.get(f"{project.url()}/health/live", timeout=10).status_code == 200


def _first_probe(project: Project, container: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = project.inspect(container)["State"]["Health"]["Log"]
        # A probe may come before the port is open; what counts is the first answer.
        answered: list[dict[str, Any]] = [probe for probe in log if "answers" in probe["Output"]]
        if answered:
            return answered[0]
        time.sleep(0.5)
    pytest.fail(f"no health check got an answer within 60 s:\n{project.docker('logs', container)}")


def test_the_image_is_slim(project: Project) -> None:
    """The image adds under 300 MiB to its base, and brings neither TensorFlow, nor a compiler, nor telemetry."""
    image = project.image("service")
    added = project.inspect(image)["Size"] - project.inspect(PYTHON_IMAGE)["Size"]
    assert added < 300 * MEBIBYTE
    code = """
import importlib.util, json, shutil
names = ["tensorflow", "keras", "training", "tests", "pip", "openvino_telemetry", "openvino", "service"]
print(json.dumps({"modules": [name for name in names if importlib.util.find_spec(name)],
                  "programs": [name for name in ["gcc", "g++", "cc", "clang", "make", "git"] if shutil.which(name)]}))
"""
    found = json.loads(project.docker("run", "--rm", "--entrypoint", "python", image, "-c", code))
    assert found == {"modules": ["openvino", "service"], "programs": []}


def test_nothing_lies_about_in_the_image(project: Project) -> None:
    """No cache of pip or apt, no package's own tests, nothing that anybody but root may write, no setuid program."""
    image = project.image("service")
    assert files_in(project, image, "/ -xdev -type f -perm /6000") == set()
    assert files_in(project, image, "/venv /app -type d ( -name tests -o -name pip -o -name .git )") == set()
    assert files_in(project, image, "/venv /app /models ( -not -user root -o -perm /022 ) -not -type l") == set()
    caches = "/root /home /tmp /var/cache /var/lib/apt/lists -type f"
    assert files_in(project, image, caches) <= files_in(project, PYTHON_IMAGE, caches)


def test_the_image_says_what_it_is(project: Project, root: Path) -> None:
    """OCI labels name the image, its licence, and where it comes from; it runs as a user without rights."""
    image = project.inspect(project.image("service"))
    assert_labels(image, "Darkroom service")
    assert image["Config"]["User"] == "10001:10001"


def test_two_builds_have_the_same_files(project: Project) -> None:
    """A build without any cache installs, compiles and copies the same bytes, to the same places, as the one before."""
    again = f"{project.image('service')}-again"
    recipe = ("--file", "docker/service.Dockerfile", "--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}")
    project.docker("build", "--quiet", "--no-cache", *recipe, "--tag", again, ".", timeout=BUILD_SECONDS)
    try:
        first, second = (_digests(project, image) for image in (project.image("service"), again))
    finally:
        project.docker("image", "rm", again)
    assert len(first) > 1000
    assert first == second


def _digests(project: Project, image: str) -> dict[str, str]:
    """Return the sha256 of each file that the image adds to its base, by its path."""
    summing = (
        "find",
        "/venv",
        "/app",
        "/models",
        "/usr/local/lib/darkroom",
        "-type",
        "f",
        "-exec",
        "sha256sum",
        "{}",
        "+",
    )
    printed = project.docker("run", "--rm", "--user", "0:0", "--entrypoint", summing[0], image, *summing[1:])
    pairs = (line.split(maxsplit=1) for line in printed.splitlines())
    return {path: digest for digest, path in pairs}


def test_it_answers_without_a_network_a_capability_or_a_writable_root(project: Project) -> None:
    """All that it needs is in the image: with nothing but a read-only root it gets healthy, as asked from inside."""
    rights = ("--read-only", "--cap-drop", "ALL", "--network", "none", "--security-opt", "no-new-privileges")
    container = project.docker("run", "--detach", *rights, project.image("service")).strip()
    try:
        _wait_until_healthy(project, container)
        code = """
import glob, json, urllib.request
with open(glob.glob("/models/*/*/assets.extra/*.png")[0], "rb") as picture:
    asked = urllib.request.Request("http://127.0.0.1:8000/predict", picture.read(), {"Content-Type": "image/png"})
print(json.load(urllib.request.urlopen(asked))["success"])
"""
        assert project.docker("exec", container, "python", "-c", code).strip() == "True"
    finally:
        project.docker("rm", "--force", container)


def _wait_until_healthy(project: Project, container: str) -> None:
    deadline = time.monotonic() + 60
    while project.inspect(container)["State"]["Health"]["Status"] != "healthy":
        if time.monotonic() > deadline:
            pytest.fail(f"it is not healthy after 60 s:\n{project.docker('logs', container)}")
        time.sleep(0.5)


def test_the_build_context_is_small(project: Project, root: Path) -> None:
    """What is sent to a build is under 25 MB, most of it the version: no data, caches, environments, tests, history."""
    copy = "FROM scratch\nCOPY . /\n"
    command = ["docker", "buildx", "build", "--quiet", "--output", "type=tar,dest=-", "--file", "-", "."]
    done = subprocess.run(command, cwd=root, input=copy.encode(), capture_output=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        members = archive.getmembers()
    assert sum(member.size for member in members) < 25_000_000
    top = {member.name.partition("/")[0] for member in members}
    assert top == {"artifact", "docker", "imaging", "machine", "models", "requirements", "service", "training"}
    assert not [member.name for member in members if "__pycache__" in member.name or ".draft-" in member.name]


def test_the_image_carries_the_bundled_versions(project: Project, root: Path) -> None:
    """Without any mount the image holds exactly what ``models/`` of the repository holds."""
    bundled = sorted(str(path.parent.relative_to(root)) for path in root.glob("models/*/*/saved_model.pb"))
    code = "import glob, os; print(*sorted(map(os.path.dirname, glob.glob('models/*/*/saved_model.pb', root_dir='/'))))"
    found = project.docker("run", "--rm", "--entrypoint", "python", project.image("service"), "-c", code)
    assert bundled, "the repository bundles no model version"
    assert found.split() == bundled


def test_the_limits_of_the_container_count(project: Project) -> None:
    """Cores and memory are those that Docker lets the service have: large pictures do not get it killed."""
    run = ("run", "--detach", "--rm", "--cpus", "1", "--memory", "400m", "--publish", "127.0.0.1::8000")
    container = project.docker(*run, project.image("service")).strip()
    try:
        code = "from machine import usable_cores, usable_memory; print(usable_cores(), usable_memory())"
        found = project.docker("exec", container, "python", "-c", code)
        assert found.split() == ["1", str(400 * MEBIBYTE)]
        url = "http://" + project.docker("port", container, "8000").split()[0]
        _wait_until_ready(url)
        content = io.BytesIO()
        Image.new("RGB", (5000, 5000), "red").save(content, "PNG")

        def post(_: int) -> int:
            body = content.getvalue()
            return requests.post(f"{url}/predict", body, headers={"Content-Type": "image/png"}, timeout=60).status_code

        with ThreadPoolExecutor(8) as clients:
            assert list(clients.map(post, range(16))) == [200] * 16
        too_large = io.BytesIO()
        Image.new("L", (7000, 7000)).save(too_large, "PNG")
        refused = requests.post(
            f"{url}/predict", too_large.getvalue(), headers={"Content-Type": "image/png"}, timeout=60
        )
        assert refused.status_code == 413
        assert "SIGKILL" not in project.docker("logs", container)
    finally:
        project.docker("stop", container)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if requests.get(f"{url}/health/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    pytest.fail("the service was not ready within 30 s")
