"""What a large GPU makes of the trainer: images a second, time to an accuracy, and teachers beyond what a CPU trains.

    python benchmarks/gpu.py --data cifar10.npz --stem stem.npz --work work --out results --stop-after 560

It needs JAX, Keras and NumPy, and no network; benchmarks/gpu_pack.py carries the pictures. The parts, in order of
worth; each writes ``results.json`` when it is done, and another call with the same ``--work`` goes on with the next:

    card      what the card is, what its matrix units reach, images/s of `standard` and `best`
    to94      `quick` in 10 s, three seeds
    to96      the network of `best` in 60 s, three seeds; together they teach the next two
    best      `best`, taught by these three
    teacher   the same network with twice the channels, taught by them as well
    standard  `standard`, taught by `teacher` and `best`
    fast      `fast`, likewise

How long a network is trained follows from what is left until ``--stop-after``: every part has a share of it, and as
many epochs are planned as fit into that at the measured pace. 2,500 images are held out, as from the published
versions. Nothing is chosen by the test images, which are answered once at the end of a part. Times are from the first
batch to the last weight, averaging and the statistics of batch normalisation included; compiling stands apart.

The plan for 15 minutes in all, of which starting the machine takes one or two (docs/training.md has the commands):

    call 1    the first third of the pictures, and ``--warm`` for all parts, in several processes: compiling takes
              no pictures, and goes on while the other parts come                                    about 60 s
    call 2    the second third                                                                       about 20 s
    call 3    the last third; all are joined; then every part, ``--stop-after 540``                  570 s
    call 4    where time is left, the parts that had none                                            the rest

``--quick`` tries all of it in minutes on a CPU: few pictures, tiny networks, a few epochs.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes compile at a time

import jax
import keras
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray

from training.data.augmentation import Batches
from training.data.dataset import Dataset, Pixels, Split, hold_out
from training.evaluation.calibration import Correction, calibrate
from training.fit.device import load_keras
from training.fit.device_epoch import DeviceEpochs, DeviceTeacher
from training.fit.hardware import describe, set_precision
from training.fit.optimizer import optimizer, schedule
from training.fit.recipe import PRESETS, Recipe
from training.network.model import build, fit_to_pixels, megaflops, set_weights

PEAK = 790.0  # TFLOP/s in bfloat16 that products of large matrices reach on an H200
VALIDATION_IMAGES = 2500
SEEDS = (0, 1, 2)
RESULTS = "results.json"
_PIECE = 15 * 2**20  # bytes of a file that comes back, at most
_RECALIBRATION_BATCHES = 20
_TOGETHER = tuple(f"to96-{seed}" for seed in SEEDS)
_MOST_EPOCHS = 120  # longer than any preset; what is left goes to the next part
_FEWEST_EPOCHS = 8
_QUICK = 300  # pictures


@dataclass(frozen=True)
class Plan:
    """A network that a part trains: by which recipe, taught by which others, and the share of the time that it gets.

    ``seconds`` is what a run may take, where that is what is measured.
    """

    recipe: Recipe
    share: float
    taught_by: tuple[str, ...] = ()
    seconds: float | None = None


PLANS = {
    "to94": Plan(PRESETS["quick"], 45, seconds=10),
    "to96": Plan(PRESETS["best"], 190, seconds=60),
    "best": Plan(PRESETS["best"], 95, _TOGETHER),
    "teacher": Plan(dataclasses.replace(PRESETS["best"], widths=(256, 704, 960)), 135, _TOGETHER),
    "standard": Plan(PRESETS["standard"], 100, ("teacher", "best")),
    "fast": Plan(PRESETS["fast"], 85, ("teacher", "best")),
}
"""The trainings in their order; ``card`` comes before them."""


class OutOfTimeError(Exception):
    """The given second has come before a part was done; what it had is lost."""


@dataclass
class Bench:
    """What all parts share: the pictures, the clock, and the folders of what is kept and of what comes back."""

    dataset: Dataset
    stem: list[list[NDArray[Any]]]
    """The weights of the layers that follow from the pictures alone: normalisation and whitening."""
    work: Path
    out: Path
    deadline: float
    quick: bool
    results: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds until the benchmark has to end."""
        return self.deadline - time.monotonic()

    def allowed(self, part: str) -> float:
        """Return the seconds that a part may take: its share of what is left for it and those that follow."""
        names = list(PLANS)
        rest = [PLANS[name].share for name in names[names.index(part) :]]
        return self.left() * PLANS[part].share / sum(rest)

    def recipe(self, part: str) -> Recipe:
        """Return the recipe of a part; that of a tiny network for a quick try."""
        chosen = PLANS[part].recipe
        if not self.quick:
            return chosen
        width = max(chosen.widths) // 80
        return dataclasses.replace(chosen, widths=(width, width, width), convolutions=2, batch_size=50)

    def keep(self, part: str, found: dict[str, Any]) -> None:
        """Note what a part found, in the folder of the work and in that of what comes back."""
        self.results[part] = found
        text = json.dumps(self.results, indent=1)
        for folder in (self.work, self.out):
            (folder / RESULTS).write_text(text, encoding="utf-8")
        print(f"{part}: {json.dumps(found)}", flush=True)


class Training:
    """A network with its recipe, compiled once and trained from the beginning for each seed."""

    def __init__(self, bench: Bench, part: str) -> None:
        self.recipe = bench.recipe(part)
        self._dataset, self._stem = bench.dataset, bench.stem
        self.teachers = [name for name in PLANS[part].taught_by if (bench.work / f"{name}.json").exists()]
        if self.teachers:
            self.recipe = dataclasses.replace(self.recipe, label_smoothing=0.0)
        recipe, labels = self.recipe, bench.dataset.labels
        self.model = build(bench.dataset.input_shape, len(labels), recipe.widths, recipe.seed, recipe.convolutions)
        self.steps = len(self._batches(0))
        self.model.compile(
            optimizer=optimizer(recipe, self.steps, scheduled=False),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self._begin(recipe.seed)
        networks = [read_network(bench, name) for name in self.teachers]
        teacher = DeviceTeacher(networks, recipe.teacher_share, recipe.teacher_temperature) if networks else None
        self.epochs = DeviceEpochs(self.model, self._batches(0), teacher=teacher)

    def compile(self) -> None:
        """Compile all that a run needs, and measure how long that takes, and how long an epoch."""
        begun = time.monotonic()
        self._epoch(0)
        first = time.monotonic() - begun
        begun = time.monotonic()
        for number in (1, 2):
            self._epoch(number)
        self.epoch_seconds = (time.monotonic() - begun) / 2
        begun = time.monotonic()
        self.epochs.recalibrate(0, _RECALIBRATION_BATCHES)
        for split in (self._dataset.validation, self._dataset.test):
            self.logits(split.images)
        self.compile_seconds = first - self.epoch_seconds + time.monotonic() - begun

    def rate(self) -> dict[str, float]:
        """Return images a second, the cost of one, and how much of the card's peak that is."""
        images = self.steps * self.recipe.batch_size / self.epoch_seconds
        cost = megaflops(self.model)
        return {
            "images_per_second": round(images),
            "megaflops": round(cost, 1),
            "share_of_peak": round(3 * cost * 1e6 * images / (PEAK * 1e12), 3),  # backwards costs twice as much
            "compile_seconds": round(self.compile_seconds, 1),
        }

    def run(self, seed: int, epochs: int, deadline: float) -> float:
        """Train from the beginning and return the seconds; raise OutOfTimeError where ``deadline`` passes."""
        self._begin(seed)
        self.epochs.batches = self._batches(seed)
        recipe = dataclasses.replace(self.recipe, epochs=epochs)
        rates = np.asarray(schedule(recipe, self.steps)(np.arange(epochs * self.steps)), np.float32)
        begun, before = time.monotonic(), None
        for number, of_epoch in enumerate(rates.reshape(epochs, self.steps)):
            logs = self.epochs.epoch(number, of_epoch)
            if before is not None:
                float(before)  # waits for the epoch before, so that the next is prepared meanwhile
            before = logs["loss"]
            if time.monotonic() > deadline:
                raise OutOfTimeError(f"epoch {number + 1} of {epochs}")
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.epochs.recalibrate(epochs, _RECALIBRATION_BATCHES)
        jax.block_until_ready([variable.value for variable in self.model.variables])
        seconds = time.monotonic() - begun
        set_weights(self.model, [in_half(weight).astype(np.float32) for weight in self.model.get_weights()])
        return seconds

    def logits(self, images: Pixels) -> NDArray[np.float32]:
        """Return the logits for ``images`` uint8 [N, 32, 32, 3]."""
        return self.epochs.logits(images)

    def accuracy(self, split: Split) -> float:
        """Return the share of ``split`` that is answered right."""
        return right(self.logits(split.images), split)

    def save(self, bench: Bench, name: str) -> None:
        """Keep the network as a teacher for what follows, with the correction that its validation images ask for."""
        held_out = self._dataset.validation
        smoothing = None if self.teachers else self.recipe.label_smoothing
        fitted = calibrate(self.logits(held_out.images), held_out.classes, "validation", smoothing)
        write_network(bench, name, self, Correction(fitted.temperature, fitted.label_smoothing))

    def _epoch(self, number: int) -> None:
        jax.block_until_ready(self.epochs.epoch(number, np.zeros(self.steps, np.float32)))

    def _begin(self, seed: int) -> None:
        """Set the weights that a training with this seed begins with, and forget what the optimizer has gathered."""
        recipe, shape = self.recipe, self.model.input_shape[1:]
        fresh = build(shape, self.model.output_shape[1], recipe.widths, seed, recipe.convolutions)
        for name, weights in zip(("normalize", "whiten"), self._stem, strict=True):
            fresh.get_layer(name).set_weights(weights)
        set_weights(self.model, fresh.get_weights())
        for variable in self.model.optimizer.variables:
            variable.assign(jnp.zeros(variable.shape, variable.dtype))

    def _batches(self, seed: int) -> Batches:
        recipe = self.recipe
        return Batches(
            self._dataset.train,
            len(self._dataset.labels),
            recipe.batch_size,
            recipe.translation,
            cutout=recipe.cutout,
            change=recipe.change,
            flip=recipe.flip,
            seed=seed,
        )


def right(logits: NDArray[np.float32], split: Split) -> float:
    """Return the share of ``split`` whose largest of ``logits`` [N, classes] is its class's."""
    return float((logits.argmax(axis=1) == split.classes).mean())


def in_half(weight: NDArray[Any]) -> NDArray[Any]:
    """Return kernels in half precision; vectors, which are small and hold statistics, as they are."""
    return weight.astype(np.float16) if weight.ndim > 1 else weight


def write_network(bench: Bench, name: str, training: Training, correction: Correction) -> None:
    """Keep a network in the folder of the work, so that others can learn from it."""
    np.savez(bench.work / f"{name}.npz", *training.model.get_weights())
    record = {"recipe": dataclasses.asdict(training.recipe), "correction": correction}
    (bench.work / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def read_network(bench: Bench, name: str) -> tuple[keras.Model, Correction]:
    """Return a network that was saved, and the correction of its answers."""
    record = json.loads((bench.work / f"{name}.json").read_text(encoding="utf-8"))
    recipe = record["recipe"]
    classes, shape = len(bench.dataset.labels), bench.dataset.input_shape
    model = build(shape, classes, tuple(recipe["widths"]), 0, recipe["convolutions"])
    with np.load(bench.work / f"{name}.npz") as weights:
        set_weights(model, [weights[key] for key in weights.files])
    return model, Correction(*record["correction"])


def card(bench: Bench) -> dict[str, Any]:
    """Say what the card is, and measure it: products of large matrices, then both networks."""
    device = jax.devices()[0]
    side = 256 if bench.quick else 8192
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in keys)
    multiply = jax.jit(jnp.matmul)
    for _ in range(3):
        multiply(a, b).block_until_ready()
    begun, times = time.monotonic(), 20
    jax.block_until_ready([multiply(a, b) for _ in range(times)])
    reached = times * 2 * side**3 / (time.monotonic() - begun) / 1e12
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "host": describe(),
        "jax": jax.__version__,
        "keras": keras.version(),
        "matrix_teraflops": round(reached, 1),
        "standard": _rate(bench, "standard"),
        "best": _rate(bench, "to96"),
    }


def _rate(bench: Bench, part: str) -> dict[str, float]:
    training = Training(bench, part)
    training.compile()
    return training.rate()


def timed(bench: Bench, part: str) -> dict[str, Any]:
    """Train as long as fits into the seconds that are given, for three seeds, and measure how good that is."""
    training, seconds = Training(bench, part), PLANS[part].seconds or 0.0
    training.compile()
    planned = _planned(bench, training, 0.95 * min(seconds, bench.left() / len(SEEDS)))
    runs = []
    for seed in SEEDS:
        took = training.run(seed, planned, bench.deadline)
        training.save(bench, f"{part}-{seed}")
        runs.append({"seconds": round(took, 2), "validation": training.accuracy(bench.dataset.validation)})
        runs[-1]["test"] = training.accuracy(bench.dataset.test)
        print(f"{part}, seed {seed}: {runs[-1]}", flush=True)
    return {**_what(training, planned), "runs": runs}


def trained(bench: Bench, part: str) -> dict[str, Any]:
    """Train as long as the part's share of the time allows, and give the weights back."""
    training = Training(bench, part)
    teachers = _teachers(bench, training)
    training.compile()  # before what is left is shared out
    planned = _planned(bench, training, 0.95 * bench.allowed(part))
    took = training.run(training.recipe.seed, planned, bench.deadline)
    training.save(bench, part)
    if part != "teacher":
        give_back(training.model.get_weights(), bench.out / f"{part}.npz")
    return {
        **_what(training, planned),
        "teachers": teachers,
        "seconds": round(took, 1),
        "validation": training.accuracy(bench.dataset.validation),
        "test": training.accuracy(bench.dataset.test),
    }


def _planned(bench: Bench, training: Training, seconds: float) -> int:
    """Return the epochs that fit into ``seconds``, for a quick try two."""
    planned = min(int(seconds / training.epoch_seconds), _MOST_EPOCHS)
    if bench.quick and planned:
        return 2
    if planned < _FEWEST_EPOCHS:
        raise OutOfTimeError(f"{max(seconds, 0):.0f} s are {max(planned, 0)} epochs, and it takes {_FEWEST_EPOCHS}")
    return planned


def _what(training: Training, epochs: int) -> dict[str, Any]:
    recipe = dataclasses.replace(training.recipe, epochs=epochs)
    return {**training.rate(), "recipe": dataclasses.asdict(recipe)}


def _teachers(bench: Bench, training: Training) -> dict[str, Any]:
    """Return the names of the teachers, and how right they are together on the images for validation and test."""
    if not training.teachers:
        return {}
    found: dict[str, Any] = {"names": training.teachers}
    if teacher := training.epochs.teacher:
        for name, split in (("validation", bench.dataset.validation), ("test", bench.dataset.test)):
            found[name] = right(teacher.predict(split.images), split)
    return found


def give_back(weights: Sequence[NDArray[Any]], file: Path) -> list[Path]:
    """Write ``weights`` in half precision to pieces of at most 15 MiB, ``file.1`` and so on, and return these."""
    whole = file.with_suffix(".whole")
    with whole.open("wb") as stream:
        np.savez(stream, *map(in_half, weights))
    content = whole.read_bytes()
    whole.unlink()
    pieces = []
    for number, begin in enumerate(range(0, len(content), _PIECE), 1):
        pieces.append(file.with_name(f"{file.name}.{number}"))
        pieces[-1].write_bytes(content[begin : begin + _PIECE])
    return pieces


def warm(bench: Bench, names: Sequence[str]) -> None:
    """Compile the networks of parts into the cache, with teachers that know nothing in place of those to come."""
    for name in names:
        begun = time.monotonic()
        if name == "card":
            card(bench)
        else:
            for teacher in PLANS[name].taught_by:
                if not (bench.work / f"{teacher}.json").exists():
                    write_network(bench, teacher, Training(bench, teacher.partition("-")[0]), Correction())
            Training(bench, name).compile()  # what comes of it is kept on the disk
        print(f"{name} is compiled, after {time.monotonic() - begun:.0f} s", flush=True)


PARTS = ("card", *PLANS)


def measure(bench: Bench, part: str) -> dict[str, Any]:
    """Do a part and return what it found."""
    if part == "card":
        return card(bench)
    return (timed if PLANS[part].seconds else trained)(bench, part)


def pictures(options: argparse.Namespace) -> Dataset:
    """Return CIFAR-10 as it was packed, or pixels by chance, of the same size and number, where there is none yet."""
    if options.data:
        with np.load(options.data) as packed:
            labels = tuple(packed["labels"].tolist())
            train = Split(packed["train_images"], packed["train_classes"])
            test = Split(packed["test_images"], packed["test_classes"])
    else:
        labels, rng = tuple("0123456789"), np.random.default_rng(0)
        train, test = (
            Split(rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=count))
            for count in (50_000, 10_000)
        )
    if options.quick:
        return hold_out("a few pictures", labels, train[:_QUICK], test[: _QUICK // 2], _QUICK // 3)
    return hold_out("CIFAR-10", labels, train, test, VALIDATION_IMAGES)


def stem_of(dataset: Dataset, file: Path | None) -> list[list[NDArray[Any]]]:
    """Return the weights of normalisation and whitening, from the file of ``gpu_pack.py`` or from the pictures."""
    if file:
        with np.load(file) as stem:
            return [[stem["mean"], stem["variance"], stem["count"]], [stem["filters"]]]
    model = build(dataset.input_shape, len(dataset.labels), (8, 8, 8), seed=0)
    fit_to_pixels(model, dataset.train.images)
    return [model.get_layer(name).get_weights() for name in ("normalize", "whiten")]


def main() -> int:
    """Do the parts that are not done yet, until all are or the time is over."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="CIFAR-10 as gpu_pack.py joined it; else pixels by chance"
    )
    parser.add_argument("--stem", type=Path, metavar="FILE", help="what gpu_pack.py took from the pictures beforehand")
    parser.add_argument("--work", type=Path, default=Path("gpu"), help="networks, results and compiled code stay here")
    parser.add_argument("--out", type=Path, help="what is to come back (default: out in the folder of the work)")
    parser.add_argument("--stop-after", type=float, default=560.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--warm", nargs="+", choices=PARTS, metavar="PART", help="only compile the networks of these")
    parser.add_argument("--quick", action="store_true", help="few pictures, tiny networks, a few epochs")
    options = parser.parse_args()
    load_keras(os.environ)
    options.out = options.out or options.work / "out"
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(options.work.resolve() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    set_precision("float32" if options.quick else "bfloat16")
    dataset = pictures(options)
    stem = stem_of(dataset, options.stem)
    bench = Bench(dataset, stem, options.work, options.out, begun + options.stop_after, options.quick)
    if options.warm:
        bench.work = options.work / f"warm-{os.getpid()}"
        bench.work.mkdir()
        warm(bench, options.warm)
        shutil.rmtree(bench.work)
        return 0
    if (options.work / RESULTS).exists():
        bench.results = json.loads((options.work / RESULTS).read_text(encoding="utf-8"))
    for name in options.only or PARTS:
        if name in bench.results:
            continue
        try:
            bench.keep(name, measure(bench, name))
        except OutOfTimeError as over:
            print(f"{name}: no time ({over})", flush=True)
    print(f"done after {time.monotonic() - begun:.0f} s: {', '.join(bench.results)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
