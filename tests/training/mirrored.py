"""``python -m tests.training.mirrored FOLDER`` trains on two virtual devices and prints the losses of every epoch.

In a process of its own, since TensorFlow has to know of the devices before anything else uses it.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from tests.training.conftest import small_dataset
from training.fit.checkpoints import RunFolder
from training.fit.deadline import StopAtDeadline
from training.fit.recipe import recipe
from training.fit.strategy import Strategy
from training.fit.train import Job, train


def main(folder: Path) -> None:
    """Train for two epochs with half of every batch on each device; then begin again without any time."""
    [processor] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = Strategy(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    short = strategy.shared(recipe("smoke", epochs=2, batch_size=15), 48)
    trained = train(Job(small_dataset(), short, RunFolder(folder), strategy=strategy), {})
    deadline = StopAtDeadline(1e-3)
    stopped = train(Job(small_dataset(), short, RunFolder(folder / "stopped"), strategy=strategy), {}, [deadline])
    figures = {"batch_size": short.batch_size, "history": trained.state.history, "stopped": stopped.state.epoch}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
