"""A training is tracked by a real MLflow server, and never suffers from one."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import artifact
from tests.training.conftest import SMOKE, call, environment
from training.errors import Interrupted, TrainingError
from training.fit.tracking import MLFLOW_RUN, Tracker, tracked

pytestmark = pytest.mark.keras

NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol, on which nothing listens


class Server:
    """An MLflow server, asked through its REST API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Return all runs of an experiment."""
        found = self._get("experiments/get-by-name", experiment_name=experiment)["experiment"]
        body = {"experiment_ids": [found["experiment_id"]]}
        answer = requests.post(f"{self.url}/api/2.0/mlflow/runs/search", json=body, timeout=30)
        runs: list[dict[str, Any]] = answer.json()["runs"]
        return runs

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and values of a metric."""
        points = self._get("metrics/get-history", run_id=run_id, metric_key=metric)["metrics"]
        return [(point["step"], point["value"]) for point in points]

    def artifacts(self, run_id: str) -> set[str]:
        """Return the names of a run's files."""
        return {file["path"] for file in self._get("artifacts/list", run_id=run_id)["files"]}

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/api/2.0/mlflow/{path}", params=parameters, timeout=30)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start an MLflow server with a database and a folder for files of its own."""
    command = root / ".venv-tracking" / "bin" / "mlflow"
    if not command.exists():
        pytest.skip("make .venv-tracking/stamp installs MLflow's server")
    folder = tmp_path_factory.mktemp("mlflow")
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", f"sqlite:///{folder / 'db'}", "--artifacts-destination", str(folder / "files")]
    quiet = environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([command, "server", *options], env=quiet, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, process)
        yield Server(url)
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]") -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < 300:
        assert process.poll() is None, "the server ended"
        try:
            requests.get(f"{url}/health", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server does not answer")


@pytest.mark.process
@pytest.mark.slow
def test_a_training_is_on_record(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipe, data, every epoch, the test's figures, card and plots are there; the version names the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    code, printed, errors = call([*SMOKE, "--epochs", "2", "--models", tmp_path / "models", "--run", tmp_path / "run"])
    assert code == 0, errors
    assert "warning" not in errors
    version = tmp_path / "models" / "smoke" / "1"
    metadata = artifact.validate(version)
    [run] = server.runs("smoke")
    assert metadata.training[MLFLOW_RUN] == run["info"]["run_id"]
    assert run["info"]["status"] == "FINISHED"
    parameters = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert parameters["data"] == metadata.dataset["sha256"]
    assert (parameters["preset"], parameters["epochs"], parameters["widths"]) == ("smoke", "2", "[8, 16, 16]")
    figures = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert figures["test_accuracy"] == metadata.metrics.accuracy
    assert {"accuracy", "val_loss", "val_accuracy", "seconds"} <= figures.keys()
    losses = server.history(run["info"]["run_id"], "loss")
    assert [step for step, _ in losses] == [1, 2]
    assert f"loss {losses[0][1]:.4f}" in printed
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert tags["version_path"] == str(version)
    plots = {"confusion_matrix.png", "learning_curves.png", "mistakes.png"}
    assert server.artifacts(run["info"]["run_id"]) >= {"MODEL_CARD.md", "report.html", *plots}


@pytest.mark.process
@pytest.mark.slow
def test_what_a_training_built_on_is_named_in_words(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long line of versions, each built on the one before, fits into MLflow's limit of 6,000 characters."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    version: dict[str, Any] = {"name": "pets", "version": 1, "accuracy": 0.9, "training_seconds": 60}
    version["training"] = {"epochs": 3, "notes": "x" * 6_000}
    with tracked("offspring", {"start_from": version, "teachers": [version, version]}, {}, {}):
        pass
    [run] = server.runs("offspring")
    parameters = {each["key"]: each["value"] for each in run["data"]["params"]}
    words = "pets version 1: 90.00% after 3 epochs, 1.0 minutes"
    assert parameters == {"start_from": words, "teachers": f"{words}; {words}"}


@pytest.mark.process
@pytest.mark.slow
def test_a_resumed_training_goes_on_in_its_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run is marked as such, and taken up again with its id; a failed one is marked too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    first = _train_and_fail(epoch=0, loss=2.0, resumed={}, error=Interrupted(15))
    assert server.runs("resumed")[0]["info"]["status"] == "KILLED"
    second = _train_and_fail(epoch=1, loss=1.0, resumed={MLFLOW_RUN: first}, error=TrainingError("it failed"))
    assert second == first
    [run] = server.runs("resumed")
    assert run["info"]["status"] == "FAILED"
    assert server.history(first, "loss") == [(1, 2.0), (2, 1.0)]


def _train_and_fail(epoch: int, loss: float, resumed: dict[str, str], error: BaseException) -> str:
    """Track one epoch of a training that ``error`` ends, and return the id of its run."""
    try:
        with tracked("resumed", {"seed": 1}, {}, resumed) as tracker:
            tracker.on_epoch_end(epoch, {"loss": loss})
            raise error
    except type(error):
        return str(tracker.run_id)


@pytest.mark.timing
def test_a_server_that_is_down_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Down at the start, there is a line and no tracking; down later, no epoch waits and the end does not for long."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    with tracked("down", {}, {}, {}) as tracker:
        assert tracker.run_id is None
    assert "warning: MLflow at $MLFLOW_TRACKING_URI" in capsys.readouterr().err
    from mlflow import MlflowClient

    later = Tracker(MlflowClient(NOBODY), "0")
    begun = time.monotonic()
    later.on_epoch_end(0, {"loss": 1.0})
    assert time.monotonic() - begun < 1
    later.ended("FAILED")
    assert time.monotonic() - begun < 45
    assert "the training goes on" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.slow
def test_mlflow_is_left_alone_unless_it_is_asked_for(root: Path) -> None:
    """Without MLFLOW_TRACKING_URI it is not even imported."""
    code = "import sys; from training.fit.tracking import tracked\nwith tracked('x', {}, {}, {}) as tracker:\n"
    code += "    tracker.on_epoch_end(0, {'loss': 1.0})\nprint('mlflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=root, env=environment(MLFLOW_TRACKING_URI=""), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
