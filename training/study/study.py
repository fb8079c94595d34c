"""Train the configurations of a study, one after the other, and report them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.accuracy import accuracy_in_words
from training.data.dataset import Dataset
from training.study import report
from training.study.configurations import CONFIGURATIONS, Schedule
from training.study.plots import save_curves
from training.study.progress import StudyProgress
from training.study.run import Outcome, Training, run


@dataclass(frozen=True)
class Study:
    """Which configurations are trained, how, on what and where.

    Checkpoints lie in ``folder``/NAME/seed-N; table and plots go to ``out``.
    """

    names: tuple[str, ...]
    schedule: Schedule
    seeds: int
    dataset: Dataset
    folder: Path
    out: Path

    def trainings(self, names: Sequence[str]) -> list[Training]:
        """Return what is to be trained for the configurations with ``names``, in the order of the table."""
        return [
            Training(configuration, self.schedule, seed, self.folder / name / f"seed-{seed}")
            for name, configuration in CONFIGURATIONS.items()
            if name in names
            for seed in range(self.seeds)
        ]


def train_all(study: Study, environment: dict[str, str]) -> list[report.Result]:
    """Train what is not finished yet, write the report after each, and return the results.

    They are those of all configurations that have been finished under ``study.folder`` with these settings, whichever
    call has trained them.

    Raises:
        Interrupted: SIGTERM or SIGINT came; what is done is saved.
        TrainingError: a folder holds a run with other settings, or a loss is no number any more.
        OSError: a folder cannot be written.
    """
    digest = study.dataset.digest()
    unfinished = [training for training in study.trainings(study.names) if training.outcome(digest) is None]
    progress = StudyProgress(study.schedule, [training.configuration for training in unfinished])
    progress.say(f"{_describe(study)} Left to train: {len(unfinished)}, with {_words(environment)}.")
    try:
        for number, training in enumerate(unfinished, 1):
            label = f"[{number}/{len(unfinished)} {training.configuration.name}]"
            outcome = run(training, study.dataset, digest, environment, progress, label)
            accuracy = accuracy_in_words(outcome.test_accuracy, len(study.dataset.test))
            progress.say(f"{label}  test accuracy {accuracy}")
            _report(study, digest)
    finally:
        progress.close()
    return _report(study, digest)


def _report(study: Study, digest: str) -> list[report.Result]:
    found = report.results(_finished(study, digest))
    report.write(found, study.schedule, _describe(study), study.out)
    save_curves(found, study.out)
    return found


def _finished(study: Study, digest: str) -> list[Outcome]:
    outcomes = (training.outcome(digest) for training in study.trainings(tuple(CONFIGURATIONS)))
    return [outcome for outcome in outcomes if outcome]


def _describe(study: Study) -> str:
    available = len(study.dataset.train)
    used = min(study.schedule.train_images or available, available)
    return (
        f"{study.dataset.name}: {used:,} of the {available:,} training images, {len(study.dataset.test):,} test images."
    )


def _words(environment: dict[str, str]) -> str:
    return "{backend} in {precision} on {hardware}".format(**environment)
