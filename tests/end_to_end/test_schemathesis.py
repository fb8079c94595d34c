"""schemathesis makes requests of what ``/openapi.json`` says, right ones and wrong ones, and judges the answers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.schemathesis_hooks import SIDE
from tests.models import copy, publish_in_a_process
from tests.service.running import ROOT, RunningService, start

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service with a model of images so small that whole tensors can be made up."""
    models = tmp_path_factory.mktemp("models")
    # Which has more to describe than one without threshold and embedding.
    copy(publish_in_a_process(models, SIDE, embedding=True), models, 2, threshold=4.0)
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
    # It leaves out the description's own route unless a filter takes that in.
    said, report = schemathesis(f"{service.url}/openapi.json", tmp_path / "report.json", "--include-path-regex", "^/")
    assert report["exit_code"] == 0, said
    described = service.get("/openapi.json").json()["paths"]
    assert report["operations"]["tested"] == sum(len(methods) for methods in described.values())
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    accepted = {
        operation: sum(phase["accepted"] for phase in phases.values())
        for operation, phases in report["valid_rates"].items()
    }
    assert len(accepted) == report["operations"]["tested"]
    assert all(accepted.values()), accepted


def test_schemathesis_finds_a_wrong_description(service: RunningService, tmp_path: Path) -> None:
    """A description that promises what the service does not do is found out, so that the other test means something."""
    description = service.get("/openapi.json").json()
    description["components"]["schemas"]["PredictAnswer"]["properties"]["success"] = {"type": "string"}
    description["paths"]["/predict"]["post"]["parameters"][0]["schema"]["minimum"] = -5
    wrong = tmp_path / "openapi.json"
    wrong.write_text(json.dumps(description), encoding="utf-8")
    options = ("--url", service.url, "--include-path", "/predict", "--phases", "coverage")
    _, report = schemathesis(str(wrong), tmp_path / "report.json", *options)
    found = {failure["type"] for failure in report["failures"]}
    assert {"JsonSchemaError", "RejectedPositiveData"} <= found
