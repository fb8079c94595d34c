"""Train under JAX in both ways, a batch at a time and an epoch on the device, and print the figures as JSON.

A test runs it in a process of its own, since Keras keeps the backend that it started with. There is no GPU: the device
is the CPU, and the trainer is told that it is one.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import keras
import numpy as np

from training.data import synthetic
from training.data.augmentation import Batches, InOrder
from training.data.dataset import Dataset, hold_out
from training.errors import Interrupted
from training.evaluation.calibration import Correction
from training.fit import device_epoch, train
from training.fit.checkpoints import RunFolder, RunState
from training.fit.device_epoch import DeviceEpochs, DeviceTeacher
from training.fit.distillation import Teacher
from training.fit.optimizer import optimizer, schedule
from training.fit.recipe import Recipe, recipe
from training.network.model import build, fit_to_pixels

_STEPS_PER_EPOCH = 20


def data() -> Dataset:
    """Return 640 made-up pictures to learn and 130, no whole number of batches, to validate with."""
    labels, training, test = synthetic.load(770, 100, seed=0)
    return hold_out("made-up", labels, training, test, 130)


def recipe_of(augmented: bool, **changes: Any) -> Recipe:
    """Return a recipe with all that the presets for CIFAR-10 have, for a very small network."""
    small = dataclasses.replace(recipe("best"), widths=(8, 16, 16), epochs=6, batch_size=32, learning_rate=1.0)
    if not augmented:
        small = dataclasses.replace(small, translation=0, cutout=0, change=0.0, flip=False)
    return dataclasses.replace(small, **changes)


def compiled(dataset: Dataset, chosen: Recipe, *, scheduled: bool = True) -> keras.Model:
    """Return a network that begins with the same weights each time."""
    model = build(dataset.input_shape, len(dataset.labels), chosen.widths, chosen.seed, chosen.convolutions)
    fit_to_pixels(model, dataset.train.images)
    model.compile(
        optimizer=optimizer(chosen, _STEPS_PER_EPOCH, scheduled=scheduled),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=chosen.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def batches_of(dataset: Dataset, chosen: Recipe, **more: Any) -> Batches:
    """Return the batches of a recipe."""
    return Batches(
        dataset.train, len(dataset.labels), chosen.batch_size, chosen.translation, cutout=chosen.cutout,
        crop=chosen.crop, change=chosen.change, flip=chosen.flip, seed=chosen.seed, **more,
    )  # fmt: skip


def in_both_ways(chosen: Recipe, teacher: bool = False) -> dict[str, Any]:
    """Return losses and accuracies of every epoch, and the weights at the end, by the host's way and the device's."""
    dataset = data()
    taught, on_device = {}, None
    if teacher:
        network = build(dataset.input_shape, len(dataset.labels), (8, 8, 8), seed=7)
        fit_to_pixels(network, dataset.train.images)
        correction = Correction(0.5, 0.05)

        def predict(images: Any) -> Any:
            return correction.probabilities(keras.ops.convert_to_numpy(network(images, training=False)))

        taught = {"teach": Teacher(predict, ()).targets(chosen.teacher_share, chosen.teacher_temperature)}
        on_device = DeviceTeacher([(network, correction)], chosen.teacher_share, chosen.teacher_temperature)
    validation = InOrder(dataset.validation, len(dataset.labels), chosen.batch_size)

    host, batches = compiled(dataset, chosen), batches_of(dataset, chosen, **taught)
    history = host.fit(
        batches.from_epoch(0), steps_per_epoch=len(batches), shuffle=False, epochs=chosen.epochs,
        validation_data=validation, verbose=0,
    ).history  # fmt: skip
    found: dict[str, Any] = {"host": history, "steps": len(batches) * chosen.epochs}

    model, batches = compiled(dataset, chosen, scheduled=False), batches_of(dataset, chosen)
    epochs = DeviceEpochs(model, batches, validation.whole(), on_device)
    rates = np.asarray(schedule(chosen, len(batches))(np.arange(found["steps"]))).reshape(chosen.epochs, -1)
    records = []
    for number in range(chosen.epochs):
        logs = epochs.epoch(number, rates[number])
        records.append({name: float(value) for name, value in logs.items()} | epochs.validate())
    found["device"] = {name: [record[name] for record in records] for name in records[0]}

    gaps = [float(np.abs(a - b).max()) for a, b in zip(host.get_weights(), model.get_weights(), strict=True)]
    found["weights apart"] = max(gaps)
    set_both = host.get_weights()
    model.set_weights(set_both)
    train.recalibrate(host, [next(iter(batches.images_from_epoch(3)))])
    epochs.recalibrate(3, 1)
    gaps = [float(np.abs(a - b).max()) for a, b in zip(host.get_weights(), model.get_weights(), strict=True)]
    found["recalibrated apart"] = max(gaps)
    answers = np.asarray(model(dataset.validation.images, training=False))
    found["answers apart"] = float(np.abs(answers - epochs.logits(dataset.validation.images)).max())
    return found


class _Stop(keras.callbacks.Callback):  # type: ignore[misc]
    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        raise Interrupted(15)


def trained(folder: Path) -> dict[str, Any]:
    """Return how far apart the weights of a run are that was stopped after its first epoch, and of one that was not."""
    train.has_gpu = lambda: True  # type: ignore[attr-defined]
    device_epoch.room = lambda: 10**9
    dataset, chosen = data(), recipe_of(augmented=True, epochs=3)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        whole = train.train(train.Job(dataset, chosen, RunFolder(folder / "whole")), {})
        stopped = train.Job(dataset, chosen, RunFolder(folder / "stopped"))
        with contextlib.suppress(Interrupted):
            train.train(stopped, {}, [_Stop()])
        saved = stopped.folder.saved()
        assert isinstance(saved, RunState)
        resumed = train.train(stopped, {})
        device_epoch.room = lambda: 10**6
        assert train._on_device(whole.model, batches_of(dataset, chosen), stopped) is None
    pairs = zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True)
    return {
        "printed": printed.getvalue(),
        "saved": saved.epoch,
        "weights apart": max(float(np.abs(a - b).max()) for a, b in pairs),
        "history": resumed.state.history,
    }


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "trainer":
        figures = trained(Path(sys.argv[2]))
    else:
        figures = in_both_ways(recipe_of(augmented=what == "augmented"), teacher=what == "taught")
    print(json.dumps(figures))
