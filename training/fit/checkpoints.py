"""The run folder: where a training keeps what it needs to go on after an interruption.

A checkpoint is a folder ``epoch-<n>/`` with the weights (the optimizer's state among them) and the run's state. It is
written beside and renamed, so that a power cut leaves the one before it.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import keras

from training.errors import TrainingError
from training.fit.lineage import Record

_STATE = "state.json"
_WEIGHTS = "checkpoint.weights.h5"
_LOGS = "tensorboard"

History = list[dict[str, float]]
"""Losses, accuracies and seconds by their names, a record for each epoch."""


@dataclass(frozen=True)
class RunState:
    """What a run is (``settings``: recipe and data), where it runs (``environment``) and how far it has come.

    ``history`` has one record of losses, accuracies and seconds for each of the ``epoch`` epochs done. ``batch_size``
    is what memory has left of the settings' own, None where that fits.
    """

    settings: Record
    environment: dict[str, str]
    epoch: int = 0
    history: History = field(default_factory=list)
    batch_size: int | None = None

    @property
    def seconds(self) -> float:
        """The training time of all epochs."""
        return sum(record["seconds"] for record in self.history)

    def changed(self, what: str) -> "RunState":
        """Return the state with a note, for the run's record, that ``what`` is otherwise from the next epoch on."""
        notes = [*filter(None, [self.environment.get("changed")]), f"{what} from epoch {self.epoch + 1}"]
        return replace(self, environment={**self.environment, "changed": "; ".join(notes)})


class RunFolder:
    """One run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def logs(self) -> Path:
        """The folder of the TensorBoard logs."""
        return self.path / _LOGS

    def state(self, settings: Record, environment: dict[str, str]) -> RunState:
        """Return the state of the last checkpoint; a fresh one where there is none.

        A run may be resumed elsewhere; its state keeps the environment that it began in. It may go on with a lower
        learning rate than it began with, which is the way out for one that diverged; the state says so.

        Raises:
            TrainingError: the checkpoint is of a run with other settings, or cannot be read.
        """
        checkpoint = self.last()
        if checkpoint is None:
            return RunState(settings, environment)
        try:
            state = RunState(**json.loads((checkpoint / _STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{checkpoint} cannot be read ({error}); --fresh starts over") from error
        state = _with_lower_rate(state, settings.get("learning_rate"))
        self._check_settings(state.settings, settings)
        return state

    def saved(self) -> RunState | None:
        """Return the state of the last checkpoint, of whatever run; None where there is none to read."""
        checkpoint = self.last()
        try:
            return RunState(**json.loads((checkpoint / _STATE).read_text("utf-8"))) if checkpoint else None
        except (OSError, ValueError, TypeError):
            return None  # whoever resumes it is told

    def environment(self) -> dict[str, str]:
        """Return the environment that the last checkpoint's run began in; nothing where there is none to read."""
        saved = self.saved()
        return saved.environment if saved else {}

    def load(self, model: keras.Model) -> None:
        """Load the weights of the last checkpoint, the optimizer's state among them, into ``model``.

        Raises:
            TrainingError: they cannot be read, or are of another network.
        """
        checkpoint = self.last()
        if checkpoint is None:
            return
        try:
            model.load_weights(checkpoint / _WEIGHTS)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{checkpoint} does not fit this model ({error}); --fresh starts over") from error

    def save(self, model: keras.Model, state: RunState) -> None:
        """Write a checkpoint of ``model`` and ``state`` and remove the ones before it."""
        draft = self.path / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        model.save_weights(draft / _WEIGHTS)
        (draft / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        older = self._checkpoints()
        draft.rename(self.path / f"epoch-{state.epoch}")
        for checkpoint in older:
            shutil.rmtree(checkpoint)

    def features(self, backbone: str, weights: str, height: int, width: int) -> Path:
        """Return the file for what a backbone with these weights makes of pictures of this size."""
        key = hashlib.sha256(weights.encode()).hexdigest()[:8]
        return self.path / f"features-{backbone}-{height}x{width}-{key}.npz"

    def clear(self) -> None:
        """Remove the checkpoints; the folder itself may be a mount point, and logs and features are of use later."""
        for entry in (*self._checkpoints(), self.path / ".draft"):
            shutil.rmtree(entry, ignore_errors=True)

    def begin_logs(self) -> None:
        """Remove the logs of the training before."""
        shutil.rmtree(self.logs, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("epoch-*"), key=lambda entry: int(entry.name.removeprefix("epoch-")))

    def last(self) -> Path | None:
        """Return the folder of the last checkpoint, None where there is none."""
        checkpoints = self._checkpoints()
        return checkpoints[-1] if checkpoints else None

    def _check_settings(self, saved: Record, wanted: Record) -> None:
        differing = sorted(key for key in saved.keys() | wanted.keys() if saved.get(key) != wanted.get(key))
        if differing:
            changes = ", ".join(f"{key} {saved.get(key)} -> {wanted.get(key)}" for key in differing)
            raise TrainingError(
                f"{self.path} holds an unpublished run with other settings ({changes}); "
                "give the same ones to resume it, --fresh to start over, or another --run folder"
            )


def require_writable(folder: Path) -> None:
    """Find out now that a folder cannot be written, not after an hour of training.

    Raises:
        TrainingError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error


def _with_lower_rate(state: RunState, wanted: float | None) -> RunState:
    before = state.settings.get("learning_rate")
    if before is None or wanted is None or wanted >= before:
        return state
    lowered = replace(state, settings={**state.settings, "learning_rate": wanted})
    return lowered.changed(f"learning rate {before:g} -> {wanted:g}")
