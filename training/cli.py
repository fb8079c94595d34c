"""The command line: ``python -m training`` trains and publishes, ``python -m training evaluate`` measures.

Keras and TensorFlow take seconds to import, so the modules that need them are imported once the arguments are known to
be good.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from artifact import InvalidVersion
from training.errors import Interrupted, Interruption, TrainingError
from training.presets import PRESETS

VALIDATION_IMAGES = 5000
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux, and Linux under Windows

_TRAIN_HELP = """\
Train an image classifier and publish it as the next version under MODELS/NAME/.

Without --data, CIFAR-10 is downloaded. The last 5,000 training images are held out for validation; the test images
are measured once, when the version is published. A run that was interrupted goes on from its last epoch when the same
command is given again.
"""
_TRAIN_EPILOG = """\
examples:
  python -m training                                     CIFAR-10, downloaded, with the standard preset
  python -m training --data cifar-10-python.tar.gz       the same from an archive or folder
  python -m training --preset smoke                      the whole path in under a minute, on made-up pictures
  python -m training --preset polish --start-from models/cifar10/1    a second, shorter cycle
  python -m training evaluate models/cifar10/1 --data cifar-10-python.tar.gz

exit codes: 0 published, 1 it failed (the last line says why), 2 wrong usage, 130 and 143 interrupted (resumable)
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    parser = _evaluate_parser() if arguments[:1] == ["evaluate"] else _train_parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    options.interruption = Interruption()
    before = {number: signal.signal(number, options.interruption.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return command(options)
    except (TrainingError, InvalidVersion) as error:
        return _fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    except Interrupted as interruption:
        name = signal.Signals(interruption.signal_number).name
        print(f"Stopped by {name}. Give the same command again to go on from the last epoch.", file=sys.stderr)
        return 128 + interruption.signal_number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str) -> int:
    print(f"training: error: {message}", file=sys.stderr)
    return 1


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        usage="python -m training [options]\n       python -m training evaluate VERSION [options]",
        description=_TRAIN_HELP,
        epilog=_TRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_train)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, metavar="PATH", help="CIFAR-10 as an archive or a folder (default: download)"
    )
    data.add_argument(
        "--validation-images",
        type=_at_least(0),
        metavar="N",
        help=f"training images to hold out, from the end; 0 trains on all (default: {VALIDATION_IMAGES:,})",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("MODEL_DIR") or "models"),
        help="folder to publish under (default: %(default)s, or $MODEL_DIR)",
    )
    output.add_argument("--name", type=_model_name, help="name of the model (default: cifar10; smoke for that preset)")
    output.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder for checkpoints and TensorBoard logs (default: NAME under runs, or under $RUN_DIR)",
    )
    output.add_argument("--fresh", action="store_true", help="start over, even where a run could be resumed")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--preset", choices=sorted(PRESETS), default="standard", help="default: %(default)s")
    recipe.add_argument(
        "--start-from",
        type=Path,
        metavar="VERSION",
        help="begin with the weights of a published version, e.g. models/cifar10/1; the polish preset is made for this",
    )
    recipe.add_argument("--epochs", type=_at_least(1), metavar="N", help="passes over the training images")
    recipe.add_argument(
        "--batch-size", type=_at_least(1), metavar="N", help="images a step; the learning rate follows in proportion"
    )
    recipe.add_argument("--seed", type=_at_least(0), metavar="N", help="seed of all chance (default: 0)")
    recipe.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="arithmetic of the training (default: bfloat16 where the hardware has it)",
    )
    return parser


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training evaluate",
        description="Measure a published model version on CIFAR-10: accuracy, calibration, precision and recall.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("evaluate", help=argparse.SUPPRESS)
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/1")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="CIFAR-10 as an archive or a folder (default: download)"
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: %(default)s")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also write confusion matrix and mistakes there")
    return parser


def _train(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.commands import train_and_publish

    return train_and_publish(options)


def _evaluate(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.commands import evaluate_version

    return evaluate_version(options)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Let the backend look for devices at the end of the block, and keep what its C++ code prints off the terminal.

    No setting silences TensorFlow: its first lines come before its logging has read one. Where an import fails, or
    where there is a GPU that it may complain of, everything is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        quiet = False
        try:
            yield
            from training.hardware import has_gpu

            has_gpu()
            quiet = not any(device.exists() for device in _GPU_DEVICES)
        finally:
            os.dup2(standard_error, 2)
            if not quiet:
                printed.seek(0)
                os.write(standard_error, printed.read())
            os.close(standard_error)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    return parse


def _model_name(text: str) -> str:
    if not text or text.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in text):
        raise argparse.ArgumentTypeError(f"{text!r} must consist of letters, digits, '.', '_' and '-'")
    return text
