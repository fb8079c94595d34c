"""The service's image as people run it: ``docker compose up -d --wait``, then answers over HTTP."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.end_to_end.conftest import PYTHON_IMAGE, Project

pytestmark = [pytest.mark.slow, pytest.mark.containers]

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
names = ["tensorflow", "keras", "training", "openvino_telemetry", "openvino", "service"]
print(json.dumps({"modules": [name for name in names if importlib.util.find_spec(name)],
                  "programs": [name for name in ["gcc", "cc", "make", "git"] if shutil.which(name)]}))
"""
    found = json.loads(project.docker("run", "--rm", "--entrypoint", "python", image, "-c", code))
    assert found == {"modules": ["openvino", "service"], "programs": []}


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
        code = "from service.machine import usable_cores, usable_memory; print(usable_cores(), usable_memory())"
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
