"""``python -m training import``: publish a pretrained network as it is, with the 1,000 labels of ImageNet."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact import Input
from training.commands.options import MODELS, Option, add, folder_and_store, model_name
from training.commands.predict import find
from training.data.dataset import Pixels, evenly_spaced
from training.data.decoding import UnreadablePicture, read
from training.errors import Interruption, TrainingError
from training.fit.device import start_of_training
from training.network.registry import BACKBONES, bundled
from training.publish.stores import open_store, where

_FEWEST, _MOST = 100, 600  # photographs; half of them give the ranges, and NNCF asks for 300 by itself

_OPTIONS = (
    Option("name", "name of the model (default: %(default)s)", kind=model_name, default="imagenet"),
    MODELS,
    Option("int8", "also quantise to int8, with the ranges of the photographs in --data", switch=True),
    Option(
        "data",
        f"folder with at least {_FEWEST} photographs, at any depth, of what the service will see; they need no labels",
        kind=Path,
        metavar="FOLDER",
    ),
)


@dataclass(frozen=True)
class ImportSettings:
    """Which network is published, and where; ``photographs`` is the folder whose pictures it is quantised with.

    ``store`` is the address of the object store that it goes to, of which ``models`` then has a copy.
    """

    backbone: str
    models: Path
    store: str | None
    name: str
    photographs: Path | None


def parse(arguments: Sequence[str]) -> ImportSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom import",
        description="Publish a network that was trained on ImageNet, with its 1,000 labels, as the next version of a "
        "model: a service for photographs without a training. Its accuracy is the one that its makers state; its "
        f"probabilities are not calibrated. The weights of {', '.join(bundled())} are installed, those of other "
        "networks are in Keras's cache or downloaded.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "backbone",
        choices=tuple(sorted(BACKBONES)),
        metavar="BACKBONE",
        help=f"name of the network, e.g. {bundled()[0]}; a wrong one lists all",
    )
    add(parser, _OPTIONS)
    options = parser.parse_args(arguments)
    if options.int8 != (options.data is not None):
        parser.error("--int8 and --data go together: the ranges of int8 are taken from photographs")
    models, store = folder_and_store(options.models)
    return ImportSettings(options.backbone, models, store, options.name, options.data)


def run(settings: ImportSettings, interruption: Interruption) -> int:
    """Publish the network; return the exit code.

    Raises:
        AccuracyLost: int8 agrees with float32 too seldom.
        SourceFails: the store cannot be read or written.
        TrainingError: the weights cannot be had, or the folder has too few photographs.
        OSError: a folder cannot be read or written.
    """
    side = BACKBONES[settings.backbone].side
    photographs = _photographs(settings.photographs, Input(side, side)) if settings.photographs else None
    os.environ["KERAS_BACKEND"] = "tensorflow"  # which alone writes a SavedModel
    with start_of_training(cpu=True):
        from training.publish.pretrained import publish_pretrained

    store = open_store(settings.store, settings.models, settings.name)
    path = publish_pretrained(settings.backbone, settings.models, settings.name, photographs, interruption, store)
    print(f"Published {where(store, path)}.")
    return 0


def _photographs(folder: Path, picture: Input) -> Pixels:
    """Return pictures of a folder as uint8 [N, H, W, 3], evenly spread; those that cannot be read are left out."""
    files = find(folder)
    pictures = []
    for index in evenly_spaced(len(files), _MOST):
        try:
            pictures.append(read(files[index], picture))
        except UnreadablePicture as error:
            print(f"Without {files[index]}: {error}.")
    if len(pictures) < _FEWEST:
        raise TrainingError(f"{folder} has {len(pictures)} photographs, and int8 takes at least {_FEWEST}")
    return np.stack(pictures)
