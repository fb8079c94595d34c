"""The options of ``compare`` and ``predict``, and those that several commands share; ``training/cli.py`` calls them."""

import argparse
from collections.abc import Callable
from pathlib import Path


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of ``compare``, without the options that say where the pictures are."""
    parser = argparse.ArgumentParser(
        prog="python -m training compare",
        description="Let two versions classify the same pictures: accuracies, their difference with its confidence "
        "interval, McNemar's exact test, the recall of each class, and the pictures on which they differ.",
        allow_abbrev=False,
    )
    parser.add_argument("compare", help=argparse.SUPPRESS)
    parser.add_argument("first", type=Path, metavar="A", help="folder of a version, e.g. models/cifar10/5")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another, which knows the same labels")
    add_split(parser)
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="also write the pictures on which they differ there: some in differences.png, all in differences.csv",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def predict_parser() -> argparse.ArgumentParser:
    """Return the parser of ``predict``."""
    parser = argparse.ArgumentParser(
        prog="python -m training predict",
        description="Classify pictures with a version, without a service: a line for each. They are decoded and scaled "
        "as the service does it. What cannot be read is listed at the end, and does not stop the others.",
        epilog="exit codes: 0 all pictures were classified, 1 some failed, or all (the last lines say why), "
        "2 wrong usage, 130 and 143 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("predict", help=argparse.SUPPRESS)
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="a picture, or a folder with pictures at any depth"
    )
    parser.add_argument(
        "--top", type=at_least(1), default=1, metavar="K", help="labels a picture (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead of a table")
    return parser


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which part of the data is classified."""
    parser.add_argument(
        "--split",
        choices=("test", "validation", "all"),
        default="test",
        help="pictures to classify; all is for data that no version was trained on (default: %(default)s)",
    )


def add_precision(parser: argparse._ActionsContainer) -> None:
    """Add the option that says in which arithmetic is trained."""
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="arithmetic of the training (default: bfloat16 where the hardware has it)",
    )


def add_cpu(parser: argparse._ActionsContainer) -> None:
    """Add the option that says yes to training without a GPU."""
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="train on the CPU, also where there is a GPU, or where the trainer's container would miss one",
    )


def at_least(least: int) -> Callable[[str], int]:
    """Return what parses a whole number from ``least``."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    return parse
