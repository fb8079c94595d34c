"""A training from what its user asks for to published versions.

A pretrained network is trained in two stages, and a version is published after each: first a new head on the network
as it is, which takes a minute, then both tuned together, which is published where it is worth it. Any other network is
trained in one.
"""

import dataclasses
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

import artifact
from artifact import Input, Int8, InvalidVersion, Metadata
from artifact.accuracy import accuracy_in_words
from artifact.layout import INT8_MODEL, MODEL_CARD, REPORT
from artifact.store import Store
from training.check.labels import answers_of, doubtful, probably_wrong
from training.data import sources
from training.data.dataset import Dataset, Split, size_in_words, targets_of
from training.data.findings import Example, Finding
from training.data.folders import few
from training.data.pictures import Reading
from training.errors import Interruption, TrainingError, WorseVersion
from training.evaluation import improvement
from training.evaluation.average_precision import mean_average_precision
from training.evaluation.embedding_score import fit_distances, fit_score
from training.evaluation.familiarity import score_of
from training.evaluation.few_images import LEAST_HELD_OUT, why_not_calibrated
from training.evaluation.inference import openvino_predict
from training.evaluation.post_hoc import PostHoc, fit_post_hoc, fit_to_logits, logits_of
from training.fit import defaults, device, hardware, pretrained
from training.fit.checkpoints import RunFolder, require_writable
from training.fit.choice import backbone_for, choose
from training.fit.deadline import StopAtDeadline
from training.fit.distillation import Teacher, ensemble
from training.fit.head import Linear
from training.fit.lineage import Lineage, Origin
from training.fit.precision import Pace, choose_precision
from training.fit.pretrained import FittedHead
from training.fit.settings import Precision, TrainSettings
from training.fit.strategy import connect
from training.fit.tracking import MLFLOW_RUN, Tracker, tracked
from training.fit.train import Job, Start, Trained, network_of, train
from training.names import command, printable
from training.network.model import in_float32
from training.network.registry import BACKBONES, NO_WEIGHTS
from training.progress import duration
from training.publish import configuration
from training.publish.model_card import int8_accuracy, multi_label_in_words
from training.publish.quantization import add_int8, add_int8_by_folds, require_held_out
from training.publish.stores import open_store, where
from training.publish.version import Candidate, Place, Published, Unseen, publish

_MOST_TIMES = 5
_EXAMPLES = 24  # of a finding, in the report
_WORTH_MEASURING = 100_000  # pictures to train on in all; fewer take about as long as the measurement
_BATCH_TO_MEASURE = 100  # pictures at most


@dataclass(frozen=True)
class Run:
    """A training that is ready to begin: what was asked for, and what followed from it and the data."""

    settings: TrainSettings
    name: str
    reading: Reading
    job: Job
    environment: dict[str, str]
    """In words, where it runs, for its record."""
    findings: tuple[Finding, ...] = ()
    """What was found in the data on the way, for the report."""
    store: Store | None = None
    """Where versions go, where that is no folder."""

    @property
    def two_stages(self) -> bool:
        """Whether a head is fitted to a pretrained network and published before that is tuned."""
        recipe, start = self.job.recipe, self.job.start
        of_a_version = start is not None and start.origin is not None
        return recipe.pretrained and not recipe.head_share and not of_a_version and self.job.strategy.workers == 1


def train_and_publish(settings: TrainSettings, interruption: Interruption, begun: float) -> int:
    """Train and publish as ``settings`` ask for; return the exit code.

    ``begun`` is when the command was given, by ``time.monotonic``: imports take seconds.

    Raises:
        Interrupted: a signal came; the epochs done are saved, and what was published by then stays.
        WorseVersion: the new version is worse than the one that it would replace; its training is kept.
        TrainingError: the data, the settings or the machine do not allow it; the message says why.
        SourceFails: the object store that versions go to cannot be read or written.
        OSError: a folder cannot be written.
    """
    with ExitStack() as held:
        run = load(settings, held)
        folder, strategy = run.job.folder, run.job.strategy
        if not strategy.is_chief:
            train(run.job, run.environment)
            print(f"Worker {strategy.worker} has trained and waits for the chief to publish.", flush=True)
            strategy.finish()
            return 0
        with tracked(run.name, run.job.settings.record(), run.environment, folder.environment()) as tracker:
            stages = _two_stages if run.two_stages else _one_stage
            published = stages(run, tracker, interruption)
            if published is None:
                held.close()  # the other process works in the same folder
                return _publish_with_tensorflow(settings.arguments)
            tracker.published(published.path)
        folder.clear()
        strategy.finish()
    _sum_up(run, published, time.monotonic() - begun)
    return 0


def load(settings: TrainSettings, held: ExitStack) -> Run:
    """Read the data, choose the recipe, and find out what stands against the training before it begins.

    The run folder is this training's own until ``held`` is closed.
    """
    smoke = settings.recipe.preset == "smoke"
    name = settings.name or sources.model_name(settings.data, smoke)
    folder = RunFolder(settings.run or Path(os.environ.get("RUN_DIR") or "runs") / name)
    if settings.deterministic:
        hardware.set_deterministic()
    strategy = connect()
    if strategy.is_chief:
        require_writable(settings.models)
        require_writable(folder.path)
        held.enter_context(folder.locked())
    store = open_store(settings.store, settings.models, name) if strategy.is_chief else None
    settings = _with_backbone(settings)
    reading = _reading(settings, folder)
    dataset = sources.load(settings.data, settings.validation_images, smoke, reading=reading)
    recipe = choose(settings.recipe, dataset, taught=bool(settings.teachers))
    if strategy.workers > 1:
        recipe = defaults.with_head_phase(recipe)  # a head of the machines' own would have to be the same one on all
    recipe = strategy.shared(recipe, len(dataset.train))
    if settings.fresh and strategy.is_chief:
        folder.clear()
    start = _start(settings.start_from, dataset) if settings.start_from else None
    teacher = ensemble([_teacher(version, dataset) for version in settings.teachers]) if settings.teachers else None
    job = Job(dataset, recipe, folder, start, teacher, strategy)
    run = Run(settings, name, reading, job, {}, store=store)
    # The head is fitted in float32; how to tune is measured after that.
    precision = "float32" if run.two_stages else _precision(settings.precision, job)
    run = dataclasses.replace(run, environment={**hardware.environment(precision), **strategy.environment()})
    if settings.int8 and not run.two_stages:
        require_held_out(job.settings.record())
    _announce(run)
    return run


def _precision(asked: Precision, job: Job) -> Precision:
    """Return the precision to train in: measured where it is left open and the training is long enough for that."""
    recipe = job.recipe
    short = recipe.epochs * len(job.dataset.train) < _WORTH_MEASURING
    if asked != "auto" or short or job.strategy.workers > 1:  # machines have to agree on one
        return asked
    if saved := job.folder.saved():
        return "float32" if saved.environment.get("precision") == "float32" else "bfloat16"
    batch = min(recipe.batch_size, _BATCH_TO_MEASURE)
    return choose_precision("auto", lambda: network_of(job.dataset, recipe), batch).precision


def _one_stage(run: Run, tracker: Tracker, interruption: Interruption) -> Published | None:
    """Train and publish; None where another process has to publish."""
    trained = _fit(run, tracker)
    return _publish_trained(run, trained, interruption) if keras.backend.backend() == "tensorflow" else None


def _fit(run: Run, tracker: Tracker, minutes: float | None = None) -> Trained:
    """Train, beginning at the last checkpoint."""
    environment = {**run.environment, MLFLOW_RUN: tracker.run_id} if tracker.run_id else run.environment
    return train(run.job, environment, [tracker, StopAtDeadline(minutes * 60 if minutes else None)])


def _publish_trained(run: Run, trained: Trained, interruption: Interruption) -> Published:
    """Publish a network that was trained by steps, with what its validation images tell."""
    dataset, state = run.job.dataset, trained.state
    model, lineage = in_float32(trained.model), Lineage.read(trained.state.settings)
    held_out = lineage.held_out()
    wanted = run.settings.int8 if run.settings.int8 is not None else run.two_stages
    post_hoc = fit_post_hoc(model, dataset, held_out, lineage.smoothing())
    thresholds = post_hoc.of_labels.thresholds if post_hoc.of_labels else None
    candidate = Candidate(
        model=model,
        post_hoc=post_hoc,
        not_calibrated=why_not_calibrated(held_out),
        record=state.settings,
        environment=state.environment,
        history=state.history,
        seconds=state.seconds,
        learned=len(dataset.train),
        held_out=len(dataset.validation),
        quantize=(lambda version: add_int8(version, dataset, held_out, thresholds)) if wanted and held_out else None,
        configuration=_configuration(run, state.environment),
        pictures=run.settings.pictures,
        findings=run.findings,
    )
    try:
        return publish(candidate, dataset, _place(run), interruption)
    except WorseVersion:
        run.job.strategy.finish()  # the training of all machines is done, and nothing of it is lost
        raise


def _two_stages(run: Run, tracker: Tracker, interruption: Interruption) -> Published | None:
    """Publish a head on the network as it is, tune both, and publish that where it is better.

    Returns the last version published; None where another process has to publish.
    """
    begun = time.monotonic()
    head = pretrained.fit(run.job)
    if len(head.folds.rows):
        print(
            f"Head: logistic regression (C = {head.folds.strength:g}), in {len(head.folds.heads)}-fold "
            f"cross-validation {_answered_in_words(head)}."
        )
        run = dataclasses.replace(run, findings=_wrong_labels(run, head))
    not_tuned = _not_tuned(run)
    published = None if not_tuned else _learned_from_the_same(run)
    publishing, refused = keras.backend.backend() == "tensorflow", None
    if published:
        print(f"Going straight to the tuning: {published.path} has learned from the same pictures.")
    elif publishing:
        try:
            published = _publish_head(run, head, time.monotonic() - begun, interruption)
            print(
                f"Published {where(run.store, published.path)}; a running service answers with it by now.", flush=True
            )
        except WorseVersion as worse:
            if not_tuned:
                raise
            refused = worse
            print(f"The head alone is not published, since it is worse than the version before: {worse}.")
    if not_tuned:
        print(not_tuned)
        return published
    held_out = len(run.job.dataset.validation)
    alone = head.without(held_out)  # what tuning begins with, and is measured against
    run, minutes = _ready_to_tune(run, alone)
    trained = _fit(run, tracker, minutes)
    if not publishing:
        return None
    tuned = _publish_tuned(run, trained, alone.logits(head.features[-held_out:]), interruption)
    if refused and not tuned:
        raise refused
    return tuned or published


def _answered_in_words(head: FittedHead) -> str:
    """Return what the folds get right of the pictures that they did not see."""
    rows = head.folds.rows
    if head.classes.ndim == 1:
        return f"{accuracy_in_words(head.accuracy(), len(rows))} right"
    found = mean_average_precision(head.folds.logits(head.features), head.classes[rows] > 0)
    return f"a mean average precision of {found:.4f} on {len(rows):,} images"


def _wrong_labels(run: Run, head: FittedHead) -> tuple[Finding, ...]:
    """Say how many labels are probably wrong, as the folds tell by the way; return that for the report."""
    dataset = run.job.dataset
    answers = answers_of(head.folds, head.features, head.labels, multi_label=dataset.multi_label)
    wrong = (doubtful if dataset.multi_label else probably_wrong)(answers, head.classes)
    if not wrong:
        return ()
    what = "1 label is" if len(wrong) == 1 else f"{len(wrong):,} labels are"
    table = f" --labels {shlex.quote(str(run.settings.labels))}" if run.settings.labels else ""
    print(f"{what} probably wrong; {command()} check {shlex.quote(str(run.settings.data))}{table} shows them.")

    def example(place: int, other: int) -> Example:
        in_train = place < len(dataset.train)
        split, index = (dataset.train, place) if in_train else (dataset.validation, place - len(dataset.train))
        name = split.names[index] if split.names else f"picture {place}"
        named = dataset.labels[other]
        if dataset.multi_label:
            note = f"has {named}; the others like it have not" if split.classes[index, other] else f"lacks {named}"
        else:
            note = f"is {dataset.labels[int(split.classes[index])]}; the others like it are {named}"
        return Example(name, note, split.images[index])

    examples = tuple(example(place, other) for place, other, _ in wrong[:_EXAMPLES])
    advice = "Look at them first: a wrong label teaches the wrong thing."
    return (Finding("Labels that are probably wrong", len(wrong), advice, examples),)


def _publish_head(run: Run, head: FittedHead, seconds: float, interruption: Interruption) -> Published:
    """Publish the head, with what cross-validation tells in the place of held-out images."""
    dataset, folds = run.job.dataset, head.folds
    every = pretrained.all_but_test(dataset)
    measured_on = f"{dataset.name}, {len(folds.heads)}-fold cross-validation"
    regression = "logistic regression of each label" if dataset.multi_label else "logistic regression"
    method = f"{regression}, C = {folds.strength:g} by {len(folds.heads)}-fold cross-validation"
    unseen, post_hoc = _by_folds(head, dataset.labels, measured_on)

    def quantize(version: Path) -> Int8:
        return add_int8_by_folds(version, every, head.features, folds, dataset.name, post_hoc.of_labels)

    candidate = Candidate(
        model=pretrained.network(run.job, head.linear),
        post_hoc=post_hoc,
        not_calibrated=why_not_calibrated(len(folds.rows), folds=True),
        record={
            **run.job.settings.record(),
            "head": method,
            "epochs": 0,
            "label_smoothing": 0.0,
            "validation_images": 0,
        },
        environment=run.environment,
        history=[],
        seconds=seconds,
        learned=len(every),
        held_out=0,
        quantize=quantize if run.settings.int8 is not False and len(folds.rows) else None,
        configuration=_configuration(run, run.environment, minutes=0),
        pictures=run.settings.pictures,
        findings=run.findings,
        answers=unseen,
    )
    return publish(candidate, dataset, _place(run), interruption)


def _by_folds(head: FittedHead, labels: tuple[str, ...], measured_on: str) -> tuple[Unseen | None, PostHoc]:
    """Return what cross-validation answers, and what is fitted to that; nothing where these are too few pictures.

    Where pictures may have several labels, they are in no class whose distance could tell how familiar they are.
    """
    folds, features, multi_label = head.folds, head.features, head.classes.ndim == 2
    logits, classes = folds.logits(features), head.classes[folds.rows]
    if len(folds.rows) < LEAST_HELD_OUT:
        return None, fit_to_logits(logits, classes, labels, measured_on)
    score, scores = None, score_of(logits, multi_label=multi_label)
    if not multi_label:
        parts = folds.parts(features, head.classes)
        score = fit_score(fit_distances(features, head.classes), parts)
        scores = score.of_parts(parts)
    post_hoc = fit_to_logits(logits, classes, labels, measured_on, scores=scores)._replace(score=score)
    outputs = {"probabilities": post_hoc.correction.probabilities(logits), "familiarity": scores}
    return Unseen({**outputs, "embedding": features[folds.rows]}, measured_on), post_hoc


def _learned_from_the_same(run: Run) -> Published | None:
    """Return the last version, where it is the same network and learned from the same pictures; else None.

    A head would be a step back for a service that has it, or nothing new.
    """
    models, number = run.settings.models, artifact.latest(run.settings.models, run.name)
    if number is None:
        return None
    path = artifact.version_path(models, run.name, number)
    try:
        metadata = artifact.read_metadata(path)
    except InvalidVersion:
        return None  # which has nothing to keep
    backbone, data = metadata.training.get("backbone"), metadata.dataset.get("sha256")
    same = (backbone, data) == (run.job.recipe.backbone, run.job.settings.data)
    return Published(path, metadata) if same and metadata.input == run.job.dataset.picture else None


def _not_tuned(run: Run) -> str:
    """Return why the network is left as it is; nothing where it is to be tuned."""
    held_out, settings = len(run.job.dataset.validation), run.settings
    if settings.minutes == 0:
        return "Not tuned, since --minutes is 0."
    if held_out < LEAST_HELD_OUT:
        in_spite = ", in spite of --epochs" if _epochs_are_given(settings) else ""
        return (
            f"Not tuned{in_spite}: with {held_out} images held out nobody could tell whether it is better; it takes "
            f"{LEAST_HELD_OUT}, which {4 * LEAST_HELD_OUT} images to train on have, or --validation-images."
        )
    return ""


def _ready_to_tune(run: Run, head: Linear) -> tuple[Run, float | None]:
    """Return the run with the head to begin with and as many epochs as there is time for, and the minutes it has.

    A run that is resumed goes on with the precision and the epochs that it began with.
    """
    settings, job = run.settings, run.job
    minutes = settings.minutes
    if minutes is None and not _epochs_are_given(settings):
        minutes = defaults.minutes(len(job.dataset.train))
    saved = job.folder.saved()
    if saved:
        precision, epochs = saved.environment["precision"], int(saved.settings["epochs"])
        hardware.set_precision("float32" if precision == "float32" else "bfloat16")
    else:
        pace = choose_precision(settings.precision, lambda: pretrained.network(job), job.recipe.batch_size)
        precision, epochs = pace.precision, _epochs(run, pace, minutes)
    recipe = dataclasses.replace(job.recipe, epochs=epochs, average_epochs=max(epochs / 8, 1.0))
    environment = {**run.environment, "precision": precision}
    job = dataclasses.replace(job, recipe=recipe, start=Start(pretrained.network(job, head).get_weights(), None))
    print(f"Tuning it from that head: {defaults.explain(job.dataset, recipe)}", flush=True)
    return dataclasses.replace(run, job=job, environment=environment), minutes


def _epochs_are_given(settings: TrainSettings) -> bool:
    return settings.recipe.epochs is not None or "epochs" in settings.recipe.fields


def _epochs(run: Run, pace: Pace, minutes: float | None) -> int:
    """Return the epochs of the recipe, or as many as fit into ``minutes`` where these were left open."""
    recipe = run.job.recipe
    if minutes is None or _epochs_are_given(run.settings):
        return recipe.epochs
    pictures = defaults.steps_per_epoch(run.job.dataset, recipe) * recipe.batch_size
    times = 1 if run.settings.minutes is None else _MOST_TIMES  # who gives time, wants it used
    most = times * recipe.epochs
    return max(min(int(0.9 * minutes * 60 * pace.pictures / pictures), most), 1)


def _publish_tuned(
    run: Run, trained: Trained, alone: NDArray[np.float32], interruption: Interruption
) -> Published | None:
    """Publish the tuned network, unless it is no better than the head alone on the held-out images; then say so.

    ``alone`` are the head's logits for those, float32 [N, classes].
    """
    dataset = run.job.dataset
    tuned = logits_of(in_float32(trained.model), dataset.validation.images)
    compared = improvement.compare(alone, tuned, dataset.validation.classes)
    if not compared.is_one:
        print(f"Tuning has made it no better, so the version before stays: {compared}.")
        return None
    print(f"Tuning has made it better: {compared}.")
    try:
        return _publish_trained(run, trained, interruption)
    except WorseVersion as worse:
        print(f"Yet it is worse on the test images, so the version before stays: {worse}.")
        return None


def _sum_up(run: Run, published: Published, seconds: float) -> None:
    """Print what came of it all, and what to do next."""
    metadata, settings = published.metadata, run.settings
    metrics, int8 = metadata.metrics, metadata.int8
    accuracy = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    served_from = (
        f"MODEL_SOURCE={settings.store}" if settings.store else f"MODEL_DIR={shlex.quote(str(settings.models))}"
    )
    lines = {
        **({"over all labels": multi_label_in_words(metadata)} if metadata.multi_label else {}),
        "all labels right" if metadata.multi_label else "accuracy": accuracy,
        "serve it": f"{served_from} MODEL_NAME={run.name} {command()} serve",
    }
    if int8:
        lines["in int8"] = int8_accuracy(int8)
    if run.two_stages:
        few_tested = metrics.images < LEAST_HELD_OUT
        more = (
            "more pictures, since so few tell little" if few_tested else "more pictures of the labels with a low recall"
        )
        if len(run.job.dataset.validation) >= LEAST_HELD_OUT:
            more += f", or more time: the same command with --minutes {_more_minutes(run):.0f}"
        lines["make it better"] = more
    report = published.path / REPORT  # the last line; a version of an earlier release has none
    lines["report"] = str(report if report.exists() else published.path / MODEL_CARD)
    print(f"\n{run.name} version {metadata.version}, after {duration(seconds)}: {where(run.store, published.path)}")
    for what, value in lines.items():
        print(f"  {what:18}{value}")


def _more_minutes(run: Run) -> float:
    """Return more minutes than the tuning was given, as a suggestion."""
    given = run.settings.minutes
    usual = defaults.minutes(len(run.job.dataset.train))
    return usual if given == 0 else 3 * (given or usual)


def _place(run: Run) -> Place:
    """Return where versions go; the one before gets the same test images, in the size that it takes."""
    settings, dataset = run.settings, run.job.dataset

    def test_images(picture: Input) -> Split:
        if picture == dataset.picture:
            return dataset.test
        made_up = dataset.name == sources.MADE_UP
        again = sources.load(settings.data, settings.validation_images, made_up, picture, run.reading).test
        then, now = dataset.test.files, again.files
        if then is not None and now is not None and not np.array_equal(then, now):
            raise TrainingError(
                f"{settings.data} has other test images by now, or not the same can be read in that size"
            )
        return again

    return Place(settings.models, run.name, test_images, settings.publish_anyway, run.store)


def _with_backbone(settings: TrainSettings) -> TrainSettings:
    """Return the settings with the pretrained network that is asked for or follows from the pictures, and say why."""
    recipe, data = settings.recipe, settings.data
    if settings.budget_ms:
        from training.publish.latency import choose_backbone  # which needs TensorFlow

        named = choose_backbone(settings.budget_ms, int8=settings.int8 is not False, size=settings.image_size)
        return dataclasses.replace(settings, recipe=dataclasses.replace(recipe, backbone=named))
    side = None
    if not (settings.start_from or settings.teachers) and data is not None and sources.is_pictures(data):
        reading = Reading(max_unreadable=settings.max_unreadable, layout=settings.layout, labels=settings.labels)
        side = min(settings.image_size) if settings.image_size else sources.middle_side(data, reading)
    name, why = backbone_for(recipe, side)
    if why:
        print(why)
    fields = {field: value for field, value in recipe.fields.items() if field != "backbone"}
    return dataclasses.replace(settings, recipe=dataclasses.replace(recipe, backbone=name, fields=fields))


def _reading(settings: TrainSettings, folder: RunFolder) -> Reading:
    """Return what becomes of pictures; unless it is asked for, what became of those to build on.

    Those for a pretrained network are brought to the size that it was trained on.
    """
    size, resize = settings.image_size, settings.resize
    if version := next(filter(None, [settings.start_from, *settings.teachers]), None):
        before = artifact.read_metadata(version).input
        size, resize = size or (before.height, before.width), resize or before.resize
    recipe = settings.recipe
    photographs = settings.data is not None and sources.is_pictures(settings.data)
    weights = recipe.backbone_weights or recipe.fields.get("backbone_weights")
    pretrained_one = photographs and weights != NO_WEIGHTS
    backbone = BACKBONES.get(recipe.backbone or "") if pretrained_one else None
    if backbone and size is None:
        size = backbone.side, backbone.side
    least = LEAST_HELD_OUT if backbone else 0
    cache = settings.cache or folder.path
    return Reading(
        size,
        resize or "crop",
        settings.max_unreadable,
        cache,
        least_held_out=least,
        layout=settings.layout,
        labels=settings.labels,
    )


def _start(version: Path, dataset: Dataset) -> Start:
    from training.publish.export import read_weights  # which needs TensorFlow

    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    return Start(read_weights(version), Origin.of(metadata))


def _teacher(version: Path, dataset: Dataset) -> Teacher:
    """Return a published version to learn from; where it has an int8 network, that one answers, since it is faster."""
    metadata = artifact.validate(version)
    _require_same_labels(version, metadata, dataset)
    if metadata.input != dataset.picture:
        takes, has = (size_in_words(picture) for picture in (metadata.input, dataset.picture))
        raise TrainingError(
            f"{version} takes pictures of {takes}, and the training has {has}; a teacher needs the same"
        )
    network = version / INT8_MODEL if metadata.int8 else version
    return Teacher(openvino_predict(network), (Origin.of(metadata),), dataset.multi_label)


def _require_same_labels(version: Path, metadata: Metadata, dataset: Dataset) -> None:
    if (metadata.task == "multi-label") != dataset.multi_label:
        one, several = (version, dataset.name) if dataset.multi_label else (dataset.name, version)
        raise TrainingError(f"{one} has one label for each picture and {several} several; they are other tasks")
    if dataset.labels != metadata.labels:
        raise TrainingError(f"{version} knows {', '.join(metadata.labels)}; the data has {', '.join(dataset.labels)}")


def _announce(run: Run) -> None:
    job, environment = run.job, run.environment
    dataset = job.dataset
    held_out = f"{len(dataset.validation):,} for validation" if len(dataset.validation) else "none held out"
    print(f"{dataset.name}: {len(dataset.train):,} training images, {held_out}, {len(dataset.test):,} for the test.")
    if untested := _untested(dataset):
        print(f"The test has no picture of {few(untested)}: learned all the same, and not measured.")
    if dataset.multi_label:
        counts = dataset.train.classes.sum(axis=1)
        print(
            f"A picture may have several of {len(dataset.labels):,} labels, or none: of those to train on each has "
            f"{counts.mean():.2f} on average, {(counts == 0).sum():,} have none."
        )
    if not hardware.has_gpu():
        print("Training on the CPU, without a GPU.")
    if not run.two_stages:
        print(
            "Training {epochs} epochs with {backend} in {precision} on {hardware}.".format(
                epochs=job.recipe.epochs, **environment
            )
        )
    if devices := environment.get("devices"):
        print(f"Devices that share every batch: {devices}.")
    sys.stdout.flush()


def _untested(dataset: Dataset) -> list[str]:
    """Return the labels that no picture of the test has, as they may be printed."""
    counts = targets_of(dataset.test.classes, len(dataset.labels)).sum(axis=0)  # [classes]
    return [printable(label) for label, count in zip(dataset.labels, counts.tolist(), strict=True) if not count]


def _publish_with_tensorflow(arguments: Sequence[str]) -> int:
    """Publish in a process of its own, since Keras keeps the backend that it started with; return its exit code.

    The run is done, so the same command under TensorFlow goes on from its last checkpoint straight to publishing.
    """
    again = [argument for argument in arguments if argument != "--fresh"]
    first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]  # several would ask for another batch
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": first_gpu, device.VARIABLE: ""}
    return subprocess.run([sys.executable, "-m", "training", *again], env=environment, check=False).returncode


def _configuration(run: Run, environment: dict[str, str], **found: object) -> str:
    """Return the file that repeats the run, with what it found out in the place of what was left open."""
    dataset = run.job.dataset
    height, width, _ = dataset.input_shape
    options = {
        **run.settings.repeatable,
        "name": run.name,
        "precision": environment["precision"],
        "image-size": f"{height}x{width}",
        "resize": dataset.resize,
        **found,
    }
    return configuration.write(options, run.job.recipe, environment.get("changed", ""))
