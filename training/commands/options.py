"""Options as data: each is declared once, for the parser of a command and for a configuration file."""

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from artifact.store import check_address
from training.data.folders import Layout
from training.data.pictures import Reading


@dataclass(frozen=True)
class Option:
    """An option of the command line, ``--name``.

    ``kind`` makes a value of its text and raises ArgumentTypeError where it cannot; a ``switch`` has none, and of
    ``several`` values there is a list. A switch that is ``negatable`` can be turned off as well, by ``--no-name``, and
    is None where neither is said. ``default`` may be a function, called when a parser is made. A configuration file may
    hold it unless it is not ``in_file``; the one that a version carries does unless it is no ``part_of_run``, since it
    makes no difference to the result.
    """

    name: str
    help: str
    kind: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    metavar: str | None = None
    default: Any = None
    switch: bool = False
    negatable: bool = False
    several: bool = False
    in_file: bool = True
    part_of_run: bool = True

    @property
    def field(self) -> str:
        """The name that its value has in Python."""
        return self.name.replace("-", "_")


def add(parser: argparse._ActionsContainer, options: Iterable[Option]) -> None:
    """Add ``options`` to a parser, or to a group of one."""
    for option in options:
        if option.negatable:
            parser.add_argument(f"--{option.name}", action=argparse.BooleanOptionalAction, help=option.help)
        elif option.switch:
            parser.add_argument(f"--{option.name}", action="store_true", help=option.help)
        else:
            parser.add_argument(
                f"--{option.name}",
                type=option.kind,
                nargs="+" if option.several else None,
                choices=option.choices,
                metavar=option.metavar,
                default=option.default() if callable(option.default) else option.default,
                help=option.help,
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


def positive(text: str) -> float:
    """Parse a number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def not_negative(text: str) -> float:
    """Parse a number from 0."""
    number = _number(text)
    if not 0 <= number < math.inf:  # so that NaN fails
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return number


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:  # so that NaN fails
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def model_name(text: str) -> str:
    """Parse the name of a model, which is also that of its folder."""
    if not text or text.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in text):
        raise argparse.ArgumentTypeError(f"{text!r} must consist of letters, digits, '.', '_' and '-'")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


MAX_UNREADABLE = Option(
    "max-unreadable",
    "share of the pictures, 0 to 1, that may be damaged; they are listed and left out (default: %(default)s)",
    kind=share,
    metavar="SHARE",
    default=0.1,
)
LAYOUT = Option(
    "layout",
    "what the folders in a folder of pictures are: classes, or splits such as train/ and test/ (default: their names "
    "say so)",
    choices=get_args(Layout),
)
LABELS = Option(
    "labels",
    "CSV file with the labels of pictures in any folders: columns path and label, or path and labels where a picture "
    "may have several (a;b or a|b) or none, and split if it is given (train, val, test); paths are below --data "
    "(default: the file's folder)",
    kind=Path,
    metavar="FILE",
)
DATA = (
    Option(
        "data",
        "folder of pictures, or CIFAR-10 as an archive or a folder (default: download CIFAR-10)",
        kind=Path,
        metavar="PATH",
    ),
    MAX_UNREADABLE,
    LAYOUT,
    LABELS,
)
"""Where the pictures are, the same for every command that reads them."""


def data_of(options: argparse.Namespace) -> Path | None:
    """Return where the pictures are that ``DATA`` names: without --data, a table of labels lies beside them."""
    data: Path | None = options.data
    return options.labels.parent if data is None and options.labels else data


def reading_of(options: argparse.Namespace) -> Reading:
    """Return how a folder of pictures is read, by MAX_UNREADABLE, LAYOUT and LABELS."""
    return Reading(max_unreadable=options.max_unreadable, layout=options.layout, labels=options.labels)


def models_place(text: str) -> Path | str:
    """Parse a folder of models, or the address of an object store."""
    if "://" not in text:
        return Path(text)
    try:
        check_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no versions can be published there: {error}") from None
    return text


def folder_and_store(models: Path | str) -> tuple[Path, str | None]:
    """Return the folder that versions are made in, and the address of the store that they go to, where it is one.

    The folder of a store keeps what was published there from here, and the newest version of others.
    """
    if isinstance(models, Path):
        return models, None
    parts = urlsplit(models)
    return Path(
        os.environ.get("RUN_DIR") or "runs", "stores", parts.scheme, parts.netloc, *parts.path.split("/")
    ), models


MODELS = Option(
    "models",
    "folder to publish under, or an object store: s3://BUCKET/PREFIX, gs://..., az://... (default: %(default)s, or "
    "$MODEL_DIR)",
    kind=models_place,
    metavar="DIR",
    default=lambda: Path(os.environ.get("MODEL_DIR") or "models"),
    part_of_run=False,
)
NO_PICTURES = Option(
    "no-pictures",
    "leave pictures and the names of their files out of report and plots, where they must not be published",
    switch=True,
)
SPLIT = Option(
    "split",
    "pictures to classify; all is for data that no version was trained on (default: %(default)s)",
    choices=("test", "validation", "all"),
    default="test",
)
PRECISION = Option(
    "precision",
    "arithmetic of the training (default: where the hardware has bfloat16, the faster one, measured)",
    choices=("auto", "float32", "bfloat16"),
    default="auto",
)
CPU = Option(
    "cpu",
    "train on the CPU, even if there is a GPU, or if the trainer's container would stop without one",
    switch=True,
    part_of_run=False,
)
