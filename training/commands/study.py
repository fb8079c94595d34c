"""``python -m training study``: reproduce the study that this project began with."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.commands.options import CPU, DATA, PRECISION, add, at_least, data_of, reading_of
from training.data.pictures import Reading
from training.errors import Interruption, TrainingError
from training.fit.device import start_of_training
from training.fit.settings import Precision
from training.study.configurations import CONFIGURATIONS, FULL, QUICK, Schedule

_HELP = """\
Reproduce the study that this project began with: VGG networks for CIFAR-10 and what regularises them. Each is trained
and then measured on the test images. The table is printed, and written beside the curves of training against test
accuracy. To continue an interrupted study, give the same command again; what is finished is not trained again.
"""
_EPILOG = """\
examples:
  darkroom study --list                            the configurations and what the original found
  darkroom study --quick                           all of them in 20 minutes on two cores
  darkroom study --only vgg3 dropout --seeds 3     two of them at full length, three times each

exit codes: 0 done, 1 it failed (the last line says why), 2 wrong usage, 4 no GPU where DARKROOM_DEVICE=gpu asks for
one, 130 and 143 interrupted (resumable)
"""


@dataclass(frozen=True)
class StudySettings:
    """Which configurations are trained, how and on what, and where their checkpoints and the report go.

    ``run`` is the folder above that of the schedule, ``out`` is None for the latter.
    """

    data: Path | None
    reading: Reading
    list: bool
    schedule: Schedule
    names: tuple[str, ...]
    seeds: int
    run: Path | None
    out: Path | None
    fresh: bool
    precision: Precision
    cpu: bool


def parse(arguments: Sequence[str]) -> StudySettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom study",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--list", action="store_true", help="list the configurations and end")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK.train_images:,} of the training images, {QUICK.epochs} epochs ({QUICK.long_epochs} in the long "
        f"schedule) instead of {FULL.epochs} ({FULL.long_epochs})",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CONFIGURATIONS,
        metavar="NAME",
        default=list(CONFIGURATIONS),
        help="train these configurations; the table has all that are finished (default: all)",
    )
    parser.add_argument("--seeds", type=at_least(1), default=1, metavar="N", help="runs of each (default: %(default)s)")
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="folder for checkpoints (default: study under runs, or under $RUN_DIR)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for table and plots (default: in that of --run)"
    )
    parser.add_argument("--fresh", action="store_true", help="start over, also what is finished or could be resumed")
    add(parser, (PRECISION, CPU, *DATA))
    options = parser.parse_args(arguments)
    return StudySettings(
        data=data_of(options),
        reading=reading_of(options),
        list=options.list,
        schedule=QUICK if options.quick else FULL,
        names=tuple(options.only),
        seeds=options.seeds,
        run=options.run,
        out=options.out,
        fresh=options.fresh,
        precision=options.precision,
        cpu=options.cpu,
    )


def run(settings: StudySettings, _interruption: Interruption) -> int:
    """Train what is asked for, print and write the table; return the exit code.

    Raises:
        Interrupted: SIGTERM or SIGINT came; what is done is saved.
        TrainingError: the data cannot be read, a folder not be written or holds another run, or a loss is no number.
    """
    if settings.list:
        print(_listing())
        return 0
    with start_of_training(cpu=settings.cpu):
        from training.data import sources
        from training.fit.checkpoints import RunFolder, require_writable
        from training.fit.hardware import environment
        from training.study import report
        from training.study.study import Study, train_all

    folder = (settings.run or Path(os.environ.get("RUN_DIR") or "runs") / "study") / settings.schedule.name
    dataset = sources.load(settings.data, 0, smoke=False, reading=settings.reading)
    if dataset.multi_label:
        raise TrainingError("the study is of pictures with one label each, and these have several")
    study = Study(settings.names, settings.schedule, settings.seeds, dataset, folder, settings.out or folder)
    for written in (study.folder, study.out):
        require_writable(written)
    trained_in = environment(settings.precision)
    with RunFolder(study.folder).locked():
        if settings.fresh:
            for training in study.trainings(study.names):
                training.clear()
        print(report.table(train_all(study, trained_in)))
    print(f"Wrote study.md, study.json and study.png to {study.out}.")
    return 0


def _listing() -> str:
    """Return a line for each configuration: name, epochs, what it is and what the original found."""
    lines = [f"{'name':12}  {'epochs':>6}  {'quick':>5}  {'what':32}  the original"]
    for name, configuration in CONFIGURATIONS.items():
        epochs, quick = FULL.epochs_of(configuration), QUICK.epochs_of(configuration)
        lines.append(f"{name:12}  {epochs:6}  {quick:5}  {configuration.what:32}  {configuration.original}".rstrip())
    return "\n".join(lines)
