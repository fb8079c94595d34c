"""The run folder: where a training keeps what it needs to go on after an interruption.

A checkpoint is a folder ``epoch-<n>/`` with the weights (the optimizer's state among them), the run's state, and the
sha256 of both. It is written beside, synced and renamed, and the one before it stays. So a power cut, or a file that
the disk damages, costs one epoch.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import keras
import numpy as np

from artifact.publish import sync, sync_folder
from training.errors import TrainingError
from training.fit.lineage import Record

_STATE = "state.json"
_WEIGHTS = "checkpoint.weights.h5"
_SUMS = "SHA256SUMS"  # as sha256sum --check reads it; checkpoints of older releases have none
_LOGS = "tensorboard"
_LOCK = ".lock"
_CHECKPOINT = re.compile(r"epoch-([1-9][0-9]*)", re.ASCII)
_ROOM_FOR_NAMES = 4096  # bytes that HDF5 takes for a variable beside its numbers, at most
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems without any

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

    @classmethod
    def read(cls, text: str) -> "RunState":
        """Return the state that a checkpoint keeps as JSON.

        Raises:
            ValueError: it is none.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.keys() - {each.name for each in fields(cls)}:
            raise ValueError("it holds no state of a run")
        kinds = {"settings": dict, "environment": dict, "epoch": int, "history": list}
        if any(not isinstance(document.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("it is not the whole state of a run")
        return cls(**document)

    def changed(self, what: str) -> "RunState":
        """Return the state with a note, for the run's record, that ``what`` is otherwise from the next epoch on."""
        notes = [*filter(None, [self.environment.get("changed")]), f"{what} from epoch {self.epoch + 1}"]
        return replace(self, environment={**self.environment, "changed": "; ".join(notes)})


class RunFolder:
    """One run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: set[Path] = set()

    @property
    def logs(self) -> Path:
        """The folder of the TensorBoard logs."""
        return self.path / _LOGS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder during the block; the system lets go of it however a process ends.

        Raises:
            TrainingError: another training works in it.
            OSError: the folder cannot be written.
        """
        import fcntl  # not on Windows, where nothing but this needs it

        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise TrainingError(
                    f"another training works in {self.path} ({file.read().strip() or 'it does not say which'}); wait "
                    "for its end or stop it, or give another --run folder"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
            yield

    def state(self, settings: Record, environment: dict[str, str]) -> RunState:
        """Return the state of the last checkpoint; a fresh one where there is none.

        A run may be resumed elsewhere; its state keeps the environment that it began in. It may go on with a lower
        learning rate than it began with, which is the way out for one that diverged; the state says so.

        Raises:
            TrainingError: the checkpoint is of a run with other settings, or there is none that can be read.
        """
        checkpoint = self.last()
        if checkpoint is None:
            if damaged := self._checkpoints():
                raise TrainingError(f"{_fault(damaged[-1])}, and there is none before it; --fresh starts over")
            return RunState(settings, environment)
        state = _with_lower_rate(_read(checkpoint), settings.get("learning_rate"))
        self._check_settings(state.settings, settings)
        return state

    def saved(self) -> RunState | None:
        """Return the state of the last checkpoint, of whatever run; None where there is none to read."""
        checkpoint = self.last()
        return _read(checkpoint) if checkpoint else None

    def environment(self) -> dict[str, str]:
        """Return the environment that the last checkpoint's run began in; nothing where there is none to read."""
        saved = self.saved()
        return saved.environment if saved else {}

    def load(self, model: keras.Model) -> None:
        """Load the weights of the last checkpoint, the optimizer's state among them, into ``model``.

        Raises:
            TrainingError: they are of another network.
        """
        checkpoint = self.last()
        if checkpoint is None:
            return
        try:
            model.load_weights(checkpoint / _WEIGHTS)
        except Exception as error:  # h5py and Keras raise nearly anything of a file that is none of this network
            raise TrainingError(f"{checkpoint} does not fit this model ({error}); --fresh starts over") from error

    def save(self, model: keras.Model, state: RunState) -> None:
        """Write a checkpoint of ``model`` and ``state``, and remove all others but the one before.

        Raises:
            TrainingError: the folder has no room, or cannot be written; the checkpoints in it stay.
        """
        draft, target = self.path / ".draft", self.path / f"epoch-{state.epoch}"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            _require_room(draft, model)
            model.save_weights(draft / _WEIGHTS)
            (draft / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
            (draft / _SUMS).write_text(_sums(draft), encoding="utf-8")
            sync(draft)
            if target.exists():  # which was damaged, or it would have been gone on from
                shutil.rmtree(target)
            draft.rename(target)
            sync_folder(self.path)
        except (OSError, RuntimeError) as error:  # h5py has RuntimeError for some of what a full disk brings about
            shutil.rmtree(draft, ignore_errors=True)
            raise TrainingError(
                f"epoch {state.epoch} could not be saved in {self.path} ({_reason(error)}); make room, and give the "
                "same command again to go on from the epoch before"
            ) from error
        numbers = [number for number in map(_epoch, self._checkpoints()) if number < state.epoch]
        for checkpoint in self._checkpoints():
            if _epoch(checkpoint) not in (state.epoch, *numbers[-1:]):
                shutil.rmtree(checkpoint, ignore_errors=True)

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

    def last(self) -> Path | None:
        """Return the folder of the last checkpoint that is whole, None where there is none; say what is passed over."""
        for checkpoint in reversed(self._checkpoints()):
            if fault := _fault(checkpoint):
                self._tell(checkpoint, f"Passed over a checkpoint: {fault}.")
            else:
                return checkpoint
        return None

    def _checkpoints(self) -> list[Path]:
        """Return the folders of checkpoints by their epochs, and say what else has a name like theirs."""
        found = []
        for entry in self.path.glob("epoch-*"):
            if _CHECKPOINT.fullmatch(entry.name) and entry.is_dir():
                found.append(entry)
            else:
                self._tell(entry, f"Passed over {entry}, which is no checkpoint.")
        return sorted(found, key=_epoch)

    def _tell(self, what: Path, sentence: str) -> None:
        if what not in self._told:
            self._told.add(what)
            print(sentence, flush=True)

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


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("epoch-"))


def _require_room(folder: Path, model: keras.Model) -> None:
    """Find out that the disk is full before HDF5 does, which may end the process; raises OSError."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    size = sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in variables)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size + _ROOM_FOR_NAMES * (len(variables) + 10))


def _sums(folder: Path) -> str:
    """Return the sha256 of weights and state, each with its name, as ``sha256sum`` writes it."""
    lines = []
    for name in (_WEIGHTS, _STATE):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _read(checkpoint: Path) -> RunState:
    """Return the state in a checkpoint; OSError or ValueError where there is none."""
    return RunState.read((checkpoint / _STATE).read_text(encoding="utf-8"))


def _fault(checkpoint: Path) -> str:
    """Return a sentence on what is wrong with a checkpoint, nothing where it is whole."""
    try:
        if (checkpoint / _SUMS).exists() and (checkpoint / _SUMS).read_text(encoding="utf-8") != _sums(checkpoint):
            return f"{checkpoint} is damaged: its files differ from its {_SUMS}"
        if _read(checkpoint).epoch != _epoch(checkpoint):
            return f"{checkpoint} holds another epoch than its name says"
        with (checkpoint / _WEIGHTS).open("rb"):
            return ""
    except (OSError, ValueError) as error:
        return f"{checkpoint} cannot be read ({_reason(error)})"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _with_lower_rate(state: RunState, wanted: float | None) -> RunState:
    before = state.settings.get("learning_rate")
    if before is None or wanted is None or wanted >= before:
        return state
    lowered = replace(state, settings={**state.settings, "learning_rate": wanted})
    return lowered.changed(f"learning rate {before:g} -> {wanted:g}")
