"""Tell an MLflow server of a training, where ``MLFLOW_TRACKING_URI`` names one.

A training does not fail because of the server and hardly waits for it: figures are sent by a thread of their own, what
could not be sent goes with the next epoch's, and what the server does not take in the end is left out with a warning.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

import artifact
from artifact.layout import EXTRA, MODEL_CARD, REPORT
from training.errors import Interrupted
from training.fit.lineage import in_words

MLFLOW_RUN = "mlflow_run"
"""The key of the run's id in a run's environment, and so in a version's metadata."""

# MLflow itself would try for minutes, and report its use. What the user has set stays.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_LAST_SECONDS = 30.0
_BATCH = 1000  # figures that MLflow takes in one request


class Tracker(keras.callbacks.Callback):  # type: ignore[misc]
    """Send the figures of every epoch to run ``run_id`` of an MLflow server; without a ``client``, do nothing."""

    def __init__(self, client: Any = None, run_id: str | None = None) -> None:
        super().__init__()
        self.run_id = run_id
        self._client = client
        self._unsent: list[Any] = []
        self._thread = ThreadPoolExecutor(1, "mlflow")
        self._sending: Future[None] | None = None
        self._failing = False
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take the time; Keras calls this."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Send the epoch's losses, accuracies and seconds; Keras calls this."""
        self._figures({**(logs or {}), "seconds": time.monotonic() - self._began}, epoch + 1)
        if self._client and (self._sending is None or self._sending.done()):
            self._sending = self._thread.submit(self._send)

    def published(self, version: Path) -> None:
        """Send the measurements of the version in folder ``version``, its path, its card and its plots; end the run."""
        if not self._client:
            return
        metadata = artifact.read_metadata(version)
        metrics = metadata.metrics
        figures = {"test_accuracy": metrics.accuracy}
        if metrics.expected_calibration_error is not None:
            figures["test_expected_calibration_error"] = metrics.expected_calibration_error
        self._figures(figures, metadata.training["epochs"])
        tags = {"version": str(metadata.version), "version_path": str(version.resolve())}
        if note := metadata.training.get("changed"):
            tags["changed"] = note
        pages = [page for page in (version / MODEL_CARD, version / REPORT) if page.exists()]
        files = [*pages, *sorted((version / EXTRA).glob("*.png"))]
        self._finish(lambda: self._deliver(tags, files))

    def ended(self, status: str) -> None:
        """End the run as ``FAILED`` or ``KILLED``, which a resumed training takes back."""
        self._finish(lambda: self._client.set_terminated(self.run_id, status))

    def _figures(self, figures: Mapping[str, float], step: int) -> None:
        if self._client:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._unsent += [Metric(name, float(value), now, step) for name, value in figures.items()]

    def _deliver(self, tags: Mapping[str, str], files: list[Path]) -> None:
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, value)
        for file in files:
            self._client.log_artifact(self.run_id, str(file))
        self._client.set_terminated(self.run_id, "FINISHED")

    def _send(self) -> None:
        """Send what is unsent; where that fails it stays so."""
        batch = self._unsent[:_BATCH]
        if _attempt(lambda: self._client.log_batch(self.run_id, metrics=batch), quiet=self._failing):
            del self._unsent[: len(batch)]
            self._failing = False
        else:
            self._failing = True

    def _finish(self, last: Callable[[], None]) -> None:
        """Send all that is left and then ``last``, for a limited time."""
        if not self._client:
            return

        def send_all() -> None:
            while self._unsent and not self._failing:
                self._send()
            if not self._failing:
                _attempt(last)

        self._failing = False
        if wait([self._thread.submit(send_all)], _LAST_SECONDS).not_done:
            _warn(f"it has not answered for {_LAST_SECONDS:.0f} s")


@contextmanager
def tracked(
    name: str, settings: Mapping[str, Any], environment: Mapping[str, str], resumed: Mapping[str, str]
) -> Iterator[Tracker]:
    """Give a tracker for the training within the block; one that does nothing without ``MLFLOW_TRACKING_URI``.

    ``name`` is the experiment's, unless ``MLFLOW_EXPERIMENT_NAME`` gives another; ``settings`` and ``environment`` are
    the parameters. A training that ``resumed`` the environment of an earlier one goes on in its run.
    """
    tracker = _begin(name, {**settings, **environment}, resumed.get(MLFLOW_RUN))
    try:
        yield tracker
    except Interrupted:
        tracker.ended("KILLED")
        raise
    except BaseException:
        tracker.ended("FAILED")
        raise


def _begin(name: str, parameters: Mapping[str, Any], run_id: str | None) -> Tracker:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return Tracker()
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    found: list[Tracker] = []

    def connect() -> None:
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        if run_id:
            client.update_run(run_id, status="RUNNING")
        found.append(Tracker(client, run_id or _create(client, name, parameters)))

    return found[0] if _attempt(connect) else Tracker()


def _create(client: Any, name: str, parameters: Mapping[str, Any]) -> str:
    """Create a run with ``parameters`` and return its id."""
    from mlflow.entities import Param

    experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    experiment = client.get_experiment_by_name(experiment_name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(experiment_name)
    run_id = str(client.create_run(experiment_id).info.run_id)
    client.log_batch(run_id, params=[Param(key, in_words(value)) for key, value in parameters.items()])
    return run_id


def _attempt(action: Callable[[], object], *, quiet: bool = False) -> bool:
    """Do what needs the server; where that fails, warn unless ``quiet``, and return False."""
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        _warn(f"{error}; pip install mlflow-skinny")
        return False
    try:
        action()
    except (MlflowException, OSError) as error:
        if not quiet:
            _warn(str(error).splitlines()[0][:200])
        return False
    return True


def _warn(what: str) -> None:
    print(f"training: warning: MLflow at $MLFLOW_TRACKING_URI: {what}; the training goes on.", file=sys.stderr)
