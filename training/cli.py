"""The command line: ``python -m training`` trains and publishes, and its subcommands work with published versions.

Keras and TensorFlow take seconds to import, so the modules that need them are imported once the arguments are known to
be good.
"""

import argparse
import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from artifact import InvalidVersion
from artifact.metadata import Resize
from machine import keep_freed_memory
from training.commands import config, options
from training.commands import study as study_arguments
from training.errors import Interrupted, Interruption, NoGpu, TrainingError, WorseVersion
from training.fit import device
from training.fit.device import Device
from training.fit.recipe import PRESETS
from training.fit.resume import how_to_resume
from training.network.registry import BACKBONES
from training.study.listing import listing

VALIDATION_IMAGES = 5000
_LEAST_SIDE, _MOST_SIDE = 16, 1024  # pixels

_TRAIN_HELP = """\
Train an image classifier and publish it as the next version under MODELS/NAME/.

--data takes a folder of pictures: one subfolder for each class, named after it, or train/, val/ and test/ of those.
What is not given is split off: a tenth for the test, a tenth for validation. Without --data, CIFAR-10 is downloaded.
The test images are measured once, when the version is published. A run that was interrupted goes on from its last epoch
when the same command is given again.

A version that gets fewer of the test images right than the latest of the same name, beyond noise (McNemar's exact test,
one-sided, 5%), is not published. Its training is kept, and the same command with --publish-anyway publishes it.
"""
_TRAIN_EPILOG = """\
examples:
  python -m training                                     CIFAR-10, downloaded, with the standard preset
  python -m training --data cifar-10-python.tar.gz       the same from an archive or folder
  python -m training --data pets                         your own pictures: pets/cat/*.jpg, pets/dog/*.jpg, ...
  python -m training --preset smoke                      the whole path in under a minute, on made-up pictures
  python -m training --config models/cifar10/5/assets.extra/config.toml    the training of that version again
  python -m training --backbone MobileNetV3Small         tune a network that was pretrained on ImageNet
  python -m training --preset fast --teacher models/cifar10/5 --name fast    a faster network, which learns from that
  python -m training evaluate models/cifar10/5 --data cifar-10-python.tar.gz
  python -m training compare models/cifar10/5 models/cifar10/6
  python -m training predict models/cifar10/5 photos
  python -m training quantize models/cifar10/5           the next version, with an int8 network as well
  python -m training study --quick                       the study that this project began with

exit codes: 0 published, 1 it failed (the last line says why), 2 wrong usage, 3 not published, since it is worse than
the version that it would replace, 4 no GPU where DARKROOM_DEVICE=gpu asks for one, as the container does, 130 and 143
interrupted (resumable)
"""
_NOT_PUBLISHED = 3
_NO_GPU = 4


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    make_parser = _SUBCOMMANDS.get(arguments[0], _train_parser) if arguments else _train_parser
    parser = make_parser()
    options = parser.parse_args(arguments)
    if getattr(options, "config", None):
        options = _with_file(parser, arguments, options.config)
    options.parser = parser
    command: Callable[[argparse.Namespace], int] = options.command
    options.interruption = Interruption()
    before = {number: signal.signal(number, options.interruption.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return command(options)
    except WorseVersion as worse:
        print(f"training: not published: {worse}", file=sys.stderr)
        return _NOT_PUBLISHED
    except NoGpu as error:
        return _fail(str(error), _NO_GPU)
    except (TrainingError, InvalidVersion) as error:
        return _fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    except Interrupted as interruption:
        name = signal.Signals(interruption.signal_number).name
        folder = getattr(options, "run", None) or Path(os.environ.get("RUN_DIR") or "runs")
        advice = how_to_resume(arguments, os.environ, folder, socket.gethostname())
        print(f"Stopped by {name}. {advice}", file=sys.stderr)
        return 128 + interruption.signal_number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, code: int = 1) -> int:
    print(f"training: error: {message}", file=sys.stderr)
    return code


def _with_file(parser: argparse.ArgumentParser, arguments: Sequence[str], path: Path) -> argparse.Namespace:
    """Parse again, with the values of a configuration file in the place of the defaults."""
    try:
        values = config.read(path, parser)
    except TrainingError as error:
        parser.error(str(error))
    return parser.parse_args(arguments, argparse.Namespace(**values))


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        usage="python -m training [options]\n       python -m training evaluate VERSION [options]\n"
        "       python -m training compare VERSION VERSION [options]\n"
        "       python -m training predict VERSION PATH... [options]\n"
        "       python -m training quantize VERSION [options]\n"
        "       python -m training study [options]",
        description=_TRAIN_HELP,
        epilog=_TRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_train, recipe_fields={})
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with these options, without their dashes, and a table [recipe] with every setting of the "
        "recipe; options given here win. Each version carries the one of its training",
    )
    data = parser.add_argument_group("data")
    _add_data(data)
    data.add_argument(
        "--validation-images",
        type=options.at_least(0),
        metavar="N",
        help="training images to hold out, in the same parts of every class; 0 trains on all "
        f"(default: val/ or a tenth; CIFAR-10: the last {VALIDATION_IMAGES:,})",
    )
    data.add_argument(
        "--image-size",
        type=_image_size,
        metavar="N",
        help="pixels that pictures are scaled to, N for NxN or HxW (default: follows from the pictures)",
    )
    data.add_argument(
        "--resize",
        choices=get_args(Resize),
        help="how: crop cuts out the centre, stretch ignores the aspect ratio (default: crop)",
    )
    data.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for pixels that do not fit into memory (default: that of --run)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("MODEL_DIR") or "models"),
        help="folder to publish under (default: %(default)s, or $MODEL_DIR)",
    )
    output.add_argument(
        "--name",
        type=_model_name,
        help="name of the model (default: that of the folder of pictures, cifar10, or smoke for that preset)",
    )
    output.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder for checkpoints and TensorBoard logs (default: NAME under runs, or under $RUN_DIR)",
    )
    output.add_argument("--fresh", action="store_true", help="start over, even where a run could be resumed")
    output.add_argument(
        "--publish-anyway", action="store_true", help="publish even where it is worse than the version before"
    )
    output.add_argument(
        "--int8",
        action="store_true",
        help="also quantise to int8; kept unless it costs more than 0.2 points of accuracy on the validation images, "
        "beyond noise",
    )
    recipe = parser.add_argument_group("recipe")
    network = recipe.add_mutually_exclusive_group()
    network.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="fast, standard or best, which cost 79, 248 and 811 MFLOP a picture; quick, the network of standard in a "
        "quarter of its time; smoke, made-up pictures in a minute (default: standard for CIFAR-10; for other data it "
        "follows from that)",
    )
    network.add_argument(
        "--backbone",
        choices=sorted(BACKBONES),
        metavar="NAME",
        help="tune a pretrained network of keras.applications, e.g. MobileNetV3Small, EfficientNetV2B0, ConvNeXtTiny, "
        "ResNet50V2; a wrong name lists all",
    )
    recipe.add_argument(
        "--backbone-weights",
        metavar="PATH",
        help="file with the backbone's weights, without its top; imagenet takes them from Keras's cache or downloads "
        "them, none begins at random (default: imagenet)",
    )
    recipe.add_argument(
        "--start-from",
        type=Path,
        metavar="VERSION",
        help="begin with the weights of a published version, e.g. models/cifar10/5",
    )
    recipe.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        metavar="VERSION",
        help="learn the answers of a published version as well as the labels, of several the mean: a small network "
        "gets better by those of a larger one",
    )
    recipe.add_argument("--epochs", type=options.at_least(1), metavar="N", help="passes over the training images")
    recipe.add_argument(
        "--batch-size",
        type=options.at_least(1),
        metavar="N",
        help="images a step; the learning rate follows in proportion",
    )
    recipe.add_argument(
        "--learning-rate", type=_positive, metavar="RATE", help="peak learning rate for a batch of 500 images"
    )
    recipe.add_argument("--seed", type=options.at_least(0), metavar="N", help="seed of all chance (default: 0)")
    recipe.add_argument(
        "--deterministic",
        action="store_true",
        help="the same seed gives the same weights on a GPU too, more slowly; on a CPU it always does",
    )
    options.add_precision(recipe)
    options.add_cpu(recipe)
    return parser


def _add_data(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where the pictures are, the same for every command that reads them."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder of pictures, or CIFAR-10 as an archive or a folder (default: download CIFAR-10)",
    )
    _add_max_unreadable(parser)


def _add_max_unreadable(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-unreadable",
        type=_share,
        metavar="SHARE",
        default=0.1,
        help="share of the pictures, 0 to 1, that may be damaged; they are listed and left out (default: %(default)s)",
    )


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training evaluate",
        description="Measure a published model version: accuracy, calibration, precision and recall. The data may have "
        "other pictures than it was trained on, and need not have all of its labels.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("evaluate", help=argparse.SUPPRESS)
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    _add_data(parser)
    options.add_split(parser)
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also write confusion matrix and mistakes there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def _study_parser() -> argparse.ArgumentParser:
    parser = study_arguments.parser()
    parser.set_defaults(command=_study)
    _add_data(parser)
    return parser


def _quantize_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training quantize",
        description="Publish the next version of a model: the same files, and the network in int8 beside. Both are "
        "measured on the images that were held out for validation; where int8 has more than 0.2 points of accuracy "
        "less, beyond noise, nothing is published.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_quantize)
    parser.add_argument("quantize", help=argparse.SUPPRESS)
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="the data that it was trained on (default: download CIFAR-10)"
    )
    _add_max_unreadable(parser)
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder to publish under (default: the one that VERSION lies in)"
    )
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = options.compare_parser()
    parser.set_defaults(command=_compare)
    _add_data(parser)
    return parser


def _predict_parser() -> argparse.ArgumentParser:
    parser = options.predict_parser()
    parser.set_defaults(command=_predict)
    return parser


_SUBCOMMANDS = {
    "compare": _compare_parser,
    "evaluate": _evaluate_parser,
    "predict": _predict_parser,
    "quantize": _quantize_parser,
    "study": _study_parser,
}


def _train(options: argparse.Namespace) -> int:
    keep_freed_memory()
    with _device(options), _quiet_start():
        from training.run import train_and_publish

    return train_and_publish(options)


def _evaluate(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.commands.evaluate import evaluate_version

    return evaluate_version(options)


def _compare(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.commands.compare import compare_versions

    return compare_versions(options)


def _predict(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.commands.predict import predict_files

    return predict_files(options)


def _study(options: argparse.Namespace) -> int:
    if options.list:
        print(listing())
        return 0
    keep_freed_memory()
    with _device(options), _quiet_start():
        from training.study.study import study

    return study(options)


def _quantize(options: argparse.Namespace) -> int:
    with _quiet_start():
        from training.run import quantize_version

    return quantize_version(options)


@contextmanager
def _device(options: argparse.Namespace) -> Iterator[None]:
    """Give the backend that the block imports the device that is asked for, or raise NoGpu at its end."""
    wanted = device.chosen(os.environ, cpu=options.cpu)
    if wanted is Device.CPU:
        device.hide_gpus(os.environ)
    yield
    if wanted is Device.GPU:
        from training.fit.hardware import gpus

        device.require_gpu(gpus(), os.environ)


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
            from training.fit.hardware import has_gpu

            has_gpu()
            quiet = not any(gpu.exists() for gpu in device.GPU_DEVICES)
        finally:
            os.dup2(standard_error, 2)
            if not quiet:
                printed.seek(0)
                os.write(standard_error, printed.read())
            os.close(standard_error)


def _image_size(text: str) -> tuple[int, int]:
    """Parse ``N`` or ``HxW``."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor HEIGHTxWIDTH")
    sides = [int(part) for part in parts]
    if min(sides) < _LEAST_SIDE or max(sides) > _MOST_SIDE:
        raise argparse.ArgumentTypeError(f"{text} is not between {_LEAST_SIDE} and {_MOST_SIDE} pixels")
    return sides[0], sides[-1]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= share <= 1:  # so that NaN fails
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _model_name(text: str) -> str:
    if not text or text.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in text):
        raise argparse.ArgumentTypeError(f"{text!r} must consist of letters, digits, '.', '_' and '-'")
    return text
