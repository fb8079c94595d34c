"""Several models and versions in processes: what one worker is asked for all do, and no request is lost meanwhile."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from service.inference.plan import SERVING_FILE
from tests.models import LABELS, copy
from tests.service.clients import asking
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, wait_for, workers

pytestmark = pytest.mark.process

RED = plain("red")
TOKEN = {"Authorization": "Bearer secret"}
SETTINGS = {
    "MODEL_NAME": "colours",
    "API_TOKENS": f"ann:{hashlib.sha256(b'secret').hexdigest()}",
    "WITHOUT_TOKEN": "probes,metrics,predictions",
}
NAMES = {("colours", 1): "red", ("colours", 2): "scarlet", ("fruits", 3): "cherry", ("fruits", 5): "strawberry"}


@pytest.fixture
def folder(models: Path, published: Path) -> Path:
    """A folder with two models of two versions each."""
    for (name, version), label in NAMES.items():
        if (name, version) != ("colours", 1):
            copy(published, models, version, (label, *LABELS[1:]), name=name)
    return models


def put(running: RunningService, path: str, body: Any) -> None:
    """Change something with the token."""
    response = requests.put(running.url + path, json=body, headers=TOKEN, timeout=30)
    assert response.status_code == 200, response.text


def labels(running: RunningService, query: str, requests_: int = 24) -> set[str]:
    """Return what a red picture is called, asked several times, each on a connection of its own."""
    found = set()
    for _ in range(requests_):
        response = requests.post(f"{running.url}/predict{query}", files={"image": RED}, timeout=30)
        found.add(response.json()["predictions"][0]["label"] if response.ok else response.json()["error"])
    return found


def test_what_one_worker_is_asked_for_all_do(start_service: StartService, folder: Path) -> None:
    """A label that is moved, and a model that is unloaded and loaded, is so in each worker within a second."""
    running = start_service(WORKERS="2", MODEL_POLL_SECONDS="60", **SETTINGS)
    assert len(workers(running)) == 2
    for version, called in ((3, "cherry"), (5, "strawberry"), (3, "cherry")):
        put(running, "/models/fruits/labels/stable", {"version": version})
        time.sleep(2)
        assert labels(running, "?model=fruits") == {called}
    repository = f"{running.url}/v2/repository/models/fruits"
    assert requests.post(f"{repository}/unload", headers=TOKEN, timeout=30).status_code == 200
    time.sleep(1)
    assert labels(running, "?model=fruits") == {"model_unavailable"}
    assert labels(running, "") == {"scarlet"}
    assert requests.post(f"{repository}/load", headers=TOKEN, timeout=30).status_code == 200
    wait_for(lambda: labels(running, "?model=fruits") == {"cherry"}, running.log)


def test_a_canary_a_shadow_and_a_rollback_lose_nothing(
    start_service: StartService, folder: Path, published: Path
) -> None:
    """Through updates of two models by calls and by a file, while clients ask for both, every request is answered."""
    running = start_service(WORKERS="2", **SETTINGS)
    put(running, "/models/fruits/labels/stable", {"version": 3})
    with asking(running, "/predict", "/predict?model=fruits", clients=2, keep_alive=False) as answers:
        time.sleep(1)
        put(
            running,
            "/models/fruits/serving",
            {"labels": {"stable": 3, "canary": 5}, "traffic": {"stable": 80, "canary": 20}},
        )
        wait_for(lambda: answers.count("strawberry") > 5, running.log)
        put(running, "/models/fruits/serving", {"labels": {"stable": 3, "canary": 5}, "shadow": "canary"})
        wait_for(lambda: metric(running, "shadow_disagreements_total") > 5, running.log)
        put(running, "/models/fruits/labels/stable", {"version": "canary"})
        before = answers.count("strawberry")
        wait_for(lambda: answers.count("strawberry") > before + 20, running.log)
        (folder / "fruits" / SERVING_FILE).write_text('{"labels": {"stable": 3}}')  # rolled back by the file
        before = answers.count("cherry")
        wait_for(lambda: answers.count("cherry") > before + 20, running.log)
        (folder / "fruits" / SERVING_FILE).write_text('{"labels": {"stable": 4}')  # which cannot be read
        copy(published, folder, 7, ("crimson", *LABELS[1:]))
        wait_for(lambda: answers.count("crimson") > 20, running.log)
        bad = copy(published, folder, 8)
        (bad / "saved_model.pb").write_bytes(b"no graph")
        time.sleep(1)
    assert answers.failures == []
    assert labels(running, "?model=fruits") == {"cherry"}
    assert labels(running, "") == {"crimson"}


def test_what_does_not_fit_is_loaded_when_somebody_asks(
    start_service: StartService, folder: Path, published: Path
) -> None:
    """Who asks is told to come back in a second, and then gets an answer; others are answered all the while."""
    copy(published, folder, 1, ("brick", *LABELS[1:]), name="things")
    running = start_service(MODEL_MEMORY_MB="115", **SETTINGS)
    states = {model["name"]: model["state"] for model in running.get("/models").json()["models"]}
    assert states == {"colours": "ready", "fruits": "ready", "things": "unloaded"}
    with asking(running, keep_alive=False) as answers:
        response = requests.post(f"{running.url}/predict?model=things", files={"image": RED}, timeout=30)
        assert (response.status_code, response.json()["error"]) == (503, "model_loading")
        assert response.headers["Retry-After"] == "1"
        wait_for(lambda: labels(running, "?model=things", 1) == {"brick"}, running.log)
    assert answers.failures == []
    assert answers.different == {"scarlet"}
    states = {model["name"]: model["state"] for model in running.get("/models").json()["models"]}
    assert states == {"colours": "ready", "fruits": "unloaded", "things": "ready"}


def test_several_models_without_a_default(start_service: StartService, folder: Path) -> None:
    """The service starts and is ready; a request that names no model is told to."""
    running = start_service(**{**SETTINGS, "MODEL_NAME": ""})
    response = requests.post(f"{running.url}/predict", files={"image": RED}, timeout=30)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert "?model=colours" in response.json()["message"]
    assert labels(running, "?model=fruits", 1) == {"strawberry"}
