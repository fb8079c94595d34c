"""The number of devices and machines does not change what is learned, and none waits for ever for another."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.service.running import free_ports
from tests.training.conftest import environment, small_dataset
from training.data import sources
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder
from training.fit.recipe import recipe
from training.fit.replicas import shares, validation_shares
from training.fit.strategy import Strategy, connect, parse
from training.fit.train import Job, train

pytestmark = pytest.mark.keras

ADDRESSES = ["10.0.0.1:2222", "10.0.0.2:2222"]


def config(cluster: object = None, task: object = None) -> str:
    """Return a TF_CONFIG of two workers, this one the first, with the changes that are given."""
    return json.dumps({"cluster": cluster or {"worker": ADDRESSES}, "task": task or {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("null", "cannot be read"),
        (config(task={"type": "worker"}), "cannot be read.*'index'"),
        (config(cluster={"worker": ADDRESSES, "ps": ["a:1"]}), "tasks of type ps; only chief and worker"),
        (config(task={"type": "evaluator", "index": 0}), "tasks of type evaluator"),
        (config(task={"type": "worker", "index": 2}), "this is worker 2, but its cluster has 2"),
        (config(cluster={"worker": ["10.0.0.1", ADDRESSES[1]]}), "names '10.0.0.1'; an address is like"),
        (config(cluster={"worker": ADDRESSES[:1]}, task={"type": "ps", "index": 0}), "tasks of type ps"),
        (config(cluster={"worker": [ADDRESSES[0], ADDRESSES[0]]}), "an address twice"),
    ],
)
def test_a_wrong_tf_config_says_what_is_wrong(text: str, message: str) -> None:
    """It never ends in a traceback, nor in a machine that waits for one that does not exist."""
    with pytest.raises(TrainingError, match=f"TF_CONFIG.*{message}"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"cluster": {}}',
        config(cluster={"worker": ADDRESSES[:1]}),
        config(cluster={"worker": ["localhost"], "ps": []}),
        config(cluster={"chief": ["127.0.0.1:2222"]}, task={"type": "chief", "index": 0}),
        '{"environment": "cloud", "cluster": {"master": ["a:1"]}, "task": {"type": "master", "index": 0}}',
    ],
)
def test_a_cluster_of_one_is_one_machine(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services of one machine set such a TF_CONFIG; it is taken away, since TensorFlow reads it too."""
    assert parse(text) is None
    monkeypatch.setenv("TF_CONFIG", text)
    assert connect() == Strategy()
    assert "TF_CONFIG" not in os.environ


def test_the_chief_comes_first() -> None:
    """A task of type chief is number 0 and the workers follow; without one the first worker is the chief."""
    cluster = {"worker": [ADDRESSES[1]], "chief": [ADDRESSES[0]]}
    numbers = [
        found.number
        for text in (config(cluster, {"type": "chief", "index": 0}), config(cluster), config())
        if (found := parse(text))
    ]
    assert numbers == [0, 1, 0]


def strategy(devices: int, worker: int = 0, workers: int = 1) -> Strategy:
    """Return a strategy of which only the numbers are used."""
    return Strategy(SimpleNamespace(num_replicas_in_sync=devices), worker, workers)


def test_a_batch_is_rounded_so_that_all_devices_get_as_much() -> None:
    """Up, with the learning rate in proportion; down where pictures are too few; one device takes what is asked."""
    assert strategy(8).shared(recipe("standard"), 50_000).batch_size == 504
    assert strategy(8).shared(recipe("standard"), 103).batch_size == 96
    assert Strategy().shared(recipe("standard"), 103).batch_size == 500
    with pytest.raises(TrainingError, match="7 training images cannot be shared among 8 devices"):
        strategy(8).shared(recipe("standard"), 7)


def test_every_picture_of_a_batch_goes_to_one_device() -> None:
    """Two machines with two devices get the four quarters of a batch, in order."""
    batch = (np.arange(8, dtype=np.uint8), np.arange(8, dtype=np.float32))
    parts = [images.tolist() for worker in (0, 1) for images, _ in shares(iter([batch]), strategy(4, worker, 2))]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_every_validation_picture_is_seen_once() -> None:
    """Also where they do not go evenly into steps and devices; no share is empty."""
    validation = (np.arange(50, dtype=np.uint8), np.arange(50, dtype=np.float32))
    parts = [images for worker in (0, 1) for images, _ in validation_shares(validation, strategy(4, worker, 2), 16)]
    assert len(parts) == 4 * 4
    assert sorted(np.concatenate(parts)) == list(range(50))
    assert {len(part) for part in parts} <= {3, 4}
    with pytest.raises(TrainingError, match="50 validation images cannot be shared among 64 devices"):
        validation_shares(validation, strategy(64), 16)


# Sums that are added up in another order decide near ties otherwise: one of 12 validation pictures is 0.083.
_TOLERANCES = {"loss": 1e-3, "val_loss": 1e-3, "accuracy": 0.1, "val_accuracy": 0.1}


@pytest.mark.process
@pytest.mark.slow
def test_two_devices_learn_what_one_does(root: Path, tmp_path: Path) -> None:
    """Losses of two epochs agree within 1e-3, accuracies but for near ties, and TensorBoard gets its logs.

    A training whose time is over ends there as well.
    """
    command = [sys.executable, "-m", "tests.training.mirrored", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout.splitlines()[-1])
    assert two["batch_size"] == 16
    assert two["stopped"] == 1
    one = train(Job(small_dataset(), recipe("smoke", epochs=2, batch_size=16), RunFolder(tmp_path / "one")), {}).state
    for expected, found in zip(one.history, two["history"], strict=True):
        for name, tolerance in _TOLERANCES.items():
            assert found[name] == pytest.approx(expected[name], abs=tolerance), name
    assert list((tmp_path / "two" / "tensorboard" / "train").glob("events.*"))


class Machines:
    """Two trainers on this machine, joined by TF_CONFIG, in float32."""

    def __init__(self, root: Path, folder: Path, *arguments: str) -> None:
        addresses = [f"localhost:{port}" for port in free_ports(2)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "training", "--preset", "smoke", "--precision", "float32", *arguments, *output],
                cwd=root,
                env=environment(TF_CONFIG=config({"worker": addresses}, {"type": "worker", "index": number})),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in (0, 1)
            for output in [("--models", folder / f"models{number}", "--run", folder / f"run{number}")]
        ]

    def end(self) -> list[str]:
        """Wait for both and return what they printed."""
        return [process.communicate(timeout=500)[0] for process in self.processes]


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[list[Machines]]:
    """Give a list for started machines, which are ended after the test."""
    started: list[Machines] = []
    yield started
    for machines in started:
        for process in machines.processes:
            with process:  # closes its pipe
                process.kill()


@pytest.mark.process
@pytest.mark.slow
def test_two_machines_learn_what_one_does(root: Path, tmp_path: Path, start: list[Machines]) -> None:
    """Losses agree within 1e-3, the chief publishes, and the worker ends well and leaves nothing behind."""
    machines = Machines(root, tmp_path, "--epochs", "2")
    start.append(machines)
    chief, worker = machines.end()
    assert [process.returncode for process in machines.processes] == [0, 0], chief + worker
    assert "Devices that share every batch: 2 on 2 machines." in chief
    assert (tmp_path / "models0" / "smoke" / "1" / "saved_model.pb").exists()
    assert "Worker 1 has trained and waits" in worker
    assert not (tmp_path / "models1").exists()
    assert not (tmp_path / "run1").exists()
    keras.mixed_precision.set_global_policy("float32")
    one = train(
        Job(sources.load(None, None, smoke=True), recipe("smoke", epochs=2), RunFolder(tmp_path / "one")), {}
    ).state
    pattern = r"epoch \d/2  loss (\S+)  accuracy (\S+)  validation loss (\S+)  accuracy (\S+)"
    two = [[float(figure) for figure in figures] for figures in re.findall(pattern, chief)]
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    for found, expected in zip(two, one.history, strict=True):
        for name, figure in zip(names, found, strict=True):
            assert figure == pytest.approx(expected[name], abs=_TOLERANCES[name]), name


@pytest.mark.process
@pytest.mark.slow
def test_the_chief_does_not_wait_for_a_dead_worker(root: Path, tmp_path: Path, start: list[Machines]) -> None:
    """When a worker is killed, the chief ends within a minute with a sentence, and keeps its checkpoint."""
    machines = Machines(root, tmp_path, "--epochs", "500")
    start.append(machines)
    chief, worker = machines.processes
    assert chief.stdout
    for line in chief.stdout:
        if line.startswith("epoch 1/500"):
            break
    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    printed, _ = chief.communicate(timeout=120)
    assert chief.returncode == 1
    assert "another of the 2 machines stopped or cannot be reached" in printed
    assert time.monotonic() - killed < 60
    assert RunFolder(tmp_path / "run0").last()


@pytest.mark.process
@pytest.mark.slow
def test_a_machine_does_not_wait_for_ever_for_the_others(root: Path) -> None:
    """Where the other machine never joins, it is named and the exit code is 1."""
    ports = free_ports(2)
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    code = "from training.fit.strategy import connect; connect(join_seconds=2)"
    command = [sys.executable, "-c", code]
    joining = environment(TF_CONFIG=config(cluster))
    done = subprocess.run(command, cwd=root, env=joining, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"at most 2 s; start the training on localhost:{ports[1]} too" in done.stdout
