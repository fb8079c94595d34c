"""Two models with two versions each in one container: a canary, promoted and rolled back while clients ask."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from service.inference.plan import SERVING_FILE, Plan, write_plan
from tests.end_to_end.conftest import Project
from tests.models import LABELS, copy
from tests.service.pictures import plain
from tests.service.running import wait_for
from tests.stack.load import Load

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.containers]

TOKEN = {"Authorization": "Bearer secret"}
RED = plain("red")
PER_SECOND = 50.0


@pytest.fixture
def two(model_folder: Path, shared_models: Path) -> Path:
    """The folder of models: colours 1 and 2, fruits 3 and 5, each with a name of its own for red."""
    source = shared_models / "colours" / "1"
    copy(source, model_folder, 1)
    copy(source, model_folder, 2, ("scarlet", *LABELS[1:]))
    copy(source, model_folder, 3, ("cherry", *LABELS[1:]), name="fruits")
    copy(source, model_folder, 5, ("strawberry", *LABELS[1:]), name="fruits")
    write_plan(model_folder / "colours", Plan(labels={"stable": 1}))
    return model_folder


@contextmanager
def up(project: Project, **variables: str) -> Iterator[Project]:
    """Give the project as ``docker compose up`` starts it, with two workers, a token for changes, and ``variables``."""
    sha256 = hashlib.sha256(b"secret").hexdigest()
    settings = {"MODEL_NAME": "colours", "API_TOKENS": f"ann:{sha256}", "WITHOUT_TOKEN": "probes,metrics,predictions"}
    started = replace(project, environment={**project.environment, "WORKERS": "2", **settings, **variables})
    started.compose("up", "--detach", "--wait", "--no-build")
    yield started


def told(project: Project, name: str) -> Any:
    """Return what ``/models`` says of a model."""
    models = requests.get(f"{project.url()}/models", timeout=30).json()["models"]
    return next(model for model in models if model["name"] == name)


def wait_for_shares(project: Project, shares: dict[int, float]) -> None:
    """Wait until all workers say that the versions of colours share the requests so; each answer is one worker's."""

    def all_say_so() -> bool:
        answers = [told(project, "colours")["versions"] for _ in range(8)]
        return all({each["version"]: each["share"] for each in answer} == shares for answer in answers)

    wait_for(all_say_so, lambda: project.compose("logs", "service", check=False))


def next_versions(load: Load, answers: int = 200) -> list[int]:
    """Return which versions give the next answers."""
    load.wait_for_answers(40)  # what was begun before
    settled = len(load.answers)
    load.wait_for_answers(answers)
    return [answer.version for answer in load.answers[settled : settled + answers]]


def assert_nothing_lost(load: Load) -> None:
    """Fail where a request got no answer, or one that its version could not give."""
    assert load.lost == [], load.report()
    assert {(answer.version, answer.label) for answer in load.answers} <= {(1, "red"), (2, "scarlet")}


def test_a_canary_by_the_file_on_the_host(project: Project, two: Path) -> None:
    """The folder is mounted read-only, so the file is edited on the host; the API says so and changes nothing."""
    with up(project) as running, Load(running.url(), RED, rate=PER_SECOND, clients=8) as load:
        assert set(next_versions(load)) == {1}
        write_plan(two / "colours", Plan(labels={"stable": 1, "canary": 2}, traffic={"stable": 1, "canary": 1}))
        wait_for_shares(running, {1: 0.5, 2: 0.5})
        assert 0.25 < next_versions(load).count(2) / 200 < 0.75

        url = f"{running.url()}/models/colours/labels/stable"
        refused = requests.put(url, json={"version": 2}, headers=TOKEN, timeout=30)
        assert (refused.status_code, refused.json()["error"]) == (409, "read_only_models")
        assert "/models/colours cannot be written" in refused.json()["message"]
        assert requests.put(url, json={"version": 2}, timeout=30).status_code == 401
        wait_for_shares(running, {1: 0.5, 2: 0.5})

        (two / "colours" / SERVING_FILE).write_text("{")
        wait_for(lambda: "serving_fault" in told(running, "colours"), lambda: running.compose("logs", "service"))
        assert requests.get(f"{running.url()}/health/ready", timeout=30).status_code == 200
        metrics = requests.get(f"{running.url()}/metrics", timeout=30).text
        assert 'darkroom_serving_faults{model="colours"} 1.0' in metrics
        assert set(next_versions(load)) == {1, 2}

        write_plan(two / "colours", Plan(labels={"stable": 2, "former": 1}))
        wait_for_shares(running, {1: 0.0, 2: 1.0})
        assert set(next_versions(load)) == {2}
        write_plan(two / "colours", Plan(labels={"stable": 1}))
        wait_for_shares(running, {1: 1.0, 2: 0.0})
        assert set(next_versions(load)) == {1}
    assert_nothing_lost(load)


def test_a_canary_is_promoted_and_rolled_back_by_the_api(project: Project, two: Path) -> None:
    """The folder is mounted writable; the other model answers meanwhile, and each tells memory and readiness."""
    owner = two.stat()
    if os.geteuid() == 0:
        subprocess.run(["chown", "--recursive", "10001:10001", str(two)], check=True)
    user = "10001:10001" if os.geteuid() == 0 else f"{owner.st_uid}:{owner.st_gid}"
    with (
        up(project, MODELS_ACCESS="rw", SERVICE_USER=user) as running,
        Load(running.url(), RED, rate=PER_SECOND, clients=8) as load,
    ):

        def put(path: str, body: Any) -> None:
            response = requests.put(f"{running.url()}/models/{path}", json=body, headers=TOKEN, timeout=30)
            assert response.status_code == 200, response.text

        put("colours/serving", {"labels": {"stable": 1, "canary": 2}, "traffic": {"stable": 3, "canary": 1}})
        wait_for_shares(running, {1: 0.75, 2: 0.25})
        assert 0.05 < next_versions(load).count(2) / 200 < 0.5
        put("colours/serving", {"labels": {"stable": 1, "canary": 2}})
        put("colours/labels/stable", {"version": "canary"})
        wait_for_shares(running, {1: 0.0, 2: 1.0})
        assert set(next_versions(load)) == {2}
        assert json.loads((two / "colours" / SERVING_FILE).read_text())["labels"] == {"stable": 2, "canary": 2}
        put("colours/labels/stable", {"version": 1})
        wait_for_shares(running, {1: 1.0, 2: 0.0})
        assert set(next_versions(load)) == {1}

        put("fruits/serving", {"versions": "all"})
        for query, label in (("", "strawberry"), ("&version=3", "cherry")):
            answer = requests.post(f"{running.url()}/predict?model=fruits{query}", files={"image": RED}, timeout=30)
            assert answer.json()["predictions"][0]["label"] == label
        for name, versions in (("colours", {1, 2}), ("fruits", {3, 5})):
            model = told(running, name)
            assert model["state"] == "ready"
            assert model["memory_mb"] > 0
            loaded = {each["version"] for each in model["versions"] if each["state"] == "AVAILABLE"}
            assert loaded == versions
        text = requests.get(f"{running.url()}/metrics", timeout=30).text
        workers = dict(re.findall(r'darkroom_model_workers{model="(\w+)",version="[25]"} (\S+)', text))
        assert workers == {"colours": "2.0", "fruits": "2.0"}
        assert "darkroom_ready_workers 2.0" in text
    assert_nothing_lost(load)
