"""The options of ``python -m training study``; ``training/cli.py`` adds those that all commands share."""

import argparse
from pathlib import Path

from training.commands.options import add_cpu, add_precision, at_least
from training.study.configurations import CONFIGURATIONS, FULL, QUICK

_HELP = """\
Reproduce the study that this project began with: VGG networks for CIFAR-10 and what regularises them. Each is trained
and then measured on the test images. The table is printed, and written beside the curves of training against test
accuracy. A study that was interrupted goes on when the same command is given again; what is finished is not trained
again.
"""
_EPILOG = """\
examples:
  python -m training study --list                            the configurations and what the original found
  python -m training study --quick                           all of them in 20 minutes on two cores
  python -m training study --only vgg3 dropout --seeds 3     two of them at full length, three times each

exit codes: 0 done, 1 it failed (the last line says why), 2 wrong usage, 4 no GPU where DARKROOM_DEVICE=gpu asks for
one, 130 and 143 interrupted (resumable)
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser, without the options that say where the pictures are."""
    parser = argparse.ArgumentParser(
        prog="python -m training study",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("study", help=argparse.SUPPRESS)
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
    parser.add_argument("--fresh", action="store_true", help="train anew what is finished or could be resumed")
    add_precision(parser)
    add_cpu(parser)
    return parser
