"""schemathesis makes requests of what ``/openapi.json`` says, right ones and wrong ones, and judges the answers."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from service.inference.plan import Plan, write_plan
from tests.end_to_end.schemathesis_hooks import SIDE
from tests.models import copy, publish_in_a_process
from tests.service.running import ROOT, RunningService, start

pytestmark = [pytest.mark.process, pytest.mark.slow]

# Paths that begin so always need a token, or that pictures are kept.
GUARDED = "(review|captured|report|models/|v2/repository/models/)"
TOKEN = "token-of-anna"  # noqa: S105 - of the tests


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model of images so small that whole tensors can be made up."""
    models = tmp_path_factory.mktemp("models")
    # Which has more to describe than one without threshold and embedding.
    copy(publish_in_a_process(models, SIDE, embedding=True), models, 2, threshold=4.0)
    write_plan(models / "colours", Plan(labels={"stable": 2}))
    return models


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[RunningService]:
    """The service with that model."""
    running = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0", "MAX_BODY_BYTES": "1000000", "MAX_BATCH": "100"})
    running.wait_until_ready()
    yield running
    running.kill()


def schemathesis(description: str, report: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """Let schemathesis test by ``description``, an address or a file; return what it prints and its report."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "tests/end_to_end/schemathesis.toml", "run"]
    done = subprocess.run(
        [*command, description, "--no-color", "--report-json-path", str(report), *options],
        cwd=ROOT,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(report.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert report.exists(), said
    return said, json.loads(report.read_text(encoding="utf-8"))


def test_schemathesis_finds_nothing(service: RunningService, tmp_path: Path) -> None:
    """Every route does what the description says, for requests that it allows and for requests that it forbids."""
    # It leaves out the description's own route unless a filter takes that in. What needs a token is another test's.
    options = ("--include-path-regex", rf"^/(?!{GUARDED})")
    said, report = schemathesis(f"{service.url}/openapi.json", tmp_path / "report.json", *options)
    assert report["exit_code"] == 0, said
    described = service.get("/openapi.json").json()["paths"]
    open_to_all = [methods for path, methods in described.items() if not re.match(f"/{GUARDED}", path)]
    assert len(described) - len(open_to_all) == 11
    assert report["operations"]["tested"] == sum(len(methods) for methods in open_to_all)
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    accepted = {
        operation: sum(phase["accepted"] for phase in phases.values())
        for operation, phases in report["valid_rates"].items()
    }
    assert len(accepted) == report["operations"]["tested"]
    assert all(accepted.values()), accepted


def test_schemathesis_finds_nothing_in_what_needs_a_token(models: Path, tmp_path: Path) -> None:
    """The same of the routes for reviewers that need no picture of a certain state."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    settings = {"CAPTURE_DIR": str(tmp_path / "captured"), "API_TOKENS": f"anna:{digest}", "DRAIN_SECONDS": "0"}
    running = start({"MODEL_DIR": str(models), **settings})
    try:
        running.wait_until_ready()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        description = tmp_path / "openapi.json"
        description.write_bytes(requests.get(f"{running.url}/openapi.json", headers=headers, timeout=30).content)
        only = ("--include-path-regex", "^/(review|captured/(summary|labels|take))$", "--phases", "coverage,fuzzing")
        sent = ("--url", running.url, "--header", f"Authorization: Bearer {TOKEN}")
        said, report = schemathesis(str(description), tmp_path / "report.json", *only, *sent)
        assert report["exit_code"] == 0, said
        assert report["operations"]["tested"] == 3
    finally:
        running.kill()


def test_schemathesis_finds_a_wrong_description(service: RunningService, tmp_path: Path) -> None:
    """A description that promises what the service does not do is found out, so that the other test means something."""
    description = service.get("/openapi.json").json()
    description["components"]["schemas"]["PredictAnswer"]["properties"]["success"] = {"type": "string"}
    [top] = [each for each in description["paths"]["/predict"]["post"]["parameters"] if each["name"] == "top"]
    top["schema"]["minimum"] = -5
    wrong = tmp_path / "openapi.json"
    wrong.write_text(json.dumps(description), encoding="utf-8")
    options = ("--url", service.url, "--include-path", "/predict", "--phases", "coverage")
    _, report = schemathesis(str(wrong), tmp_path / "report.json", *options)
    found = {failure["type"] for failure in report["failures"]}
    assert {"JsonSchemaError", "RejectedPositiveData"} <= found
