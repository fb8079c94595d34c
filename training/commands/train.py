"""``python -m training``: train an image classifier and publish it."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from artifact.metadata import Resize
from training.commands import config
from training.commands.options import (
    CPU,
    DATA,
    MODELS,
    NO_PICTURES,
    PRECISION,
    Option,
    add,
    at_least,
    data_of,
    folder_and_store,
    model_name,
    not_negative,
    positive,
)
from training.data.cifar10 import VALIDATION_IMAGES
from training.errors import Interruption, TrainingError
from training.fit.device import start_of_training
from training.fit.recipe import PRESETS
from training.fit.settings import RecipeSettings, TrainSettings
from training.network.registry import BACKBONES, DEFAULT, OWN_NETWORK, bundled

_LEAST_SIDE, _MOST_SIDE = 16, 1024  # pixels

_USAGE = """\
darkroom train [options]
       darkroom check FOLDER [options]
       darkroom evaluate VERSION [options]
       darkroom compare VERSION VERSION [options]
       darkroom predict VERSION PATH... [options]
       darkroom quantize VERSION [options]
       darkroom report VERSION [options]
       darkroom export VERSION --to onnx|litert [options]
       darkroom import BACKBONE [options]
       darkroom study [options]"""
_HELP = """\
Train an image classifier and publish it as the next version under MODELS/NAME/.

--data takes a folder of pictures: one subfolder for each class, named after it, or train/, val/ and test/ of those, by
these or similar names.
Where the folder has no test/ or val/, a tenth is set aside for each. --labels takes a CSV file with the labels instead,
of which a picture may have several. Without --data, CIFAR-10 is downloaded.
The test images are measured once, when the version is published. To continue an interrupted training from its last
epoch, give the same command again.

A version that gets fewer of the test images right than the latest of the same name, beyond noise (McNemar's exact test,
one-sided, 5%), is not published. Its training is kept, and the same command with --publish-anyway publishes it. If
there are too few test images to tell, the trainer says so and publishes the version.
"""
_EPILOG = """\
examples:
  darkroom train                                     CIFAR-10, downloaded, with the standard preset
  darkroom train --data cifar-10-python.tar.gz       the same from an archive or folder
  darkroom train --data pets                         your own pictures: pets/cat/*.jpg, pets/dog/*.jpg, ...
  darkroom train --labels pets.csv                   labels from a table: path,labels, with cat;dog for several
  darkroom train --preset smoke                      the whole path in under a minute, on made-up pictures
  darkroom train --config models/cifar10/5/assets.extra/config.toml    the training of that version again
  darkroom train --backbone MobileNetV3Small         tune a network that was pretrained on ImageNet
  darkroom train --preset fast --teacher models/cifar10/5 --name fast    a faster network, which learns from that
  darkroom check pets                                what is wrong with your pictures, before they are learned
  darkroom evaluate models/cifar10/5 --data cifar-10-python.tar.gz
  darkroom compare models/cifar10/5 models/cifar10/6
  darkroom predict models/cifar10/5 photos
  darkroom report models/pets/2 --compare models/pets/1 --data pets          a page with what has changed
  darkroom quantize models/cifar10/5                 the next version, with an int8 network as well
  darkroom export models/cifar10/5 --to onnx         a file for ONNX Runtime
  darkroom import EfficientNetLite2                  a network for photographs with ImageNet's 1,000 labels
  darkroom study --quick                             the study that this project began with

exit codes: 0 published, 1 it failed (the last line says why), 2 wrong usage, 3 not published, since it is worse than
the version that it would replace, 4 no GPU where DARKROOM_DEVICE=gpu asks for one, as the container does, 130 and 143
interrupted (resumable)
"""


def parse(arguments: Sequence[str]) -> TrainSettings:
    """Return what the command line asks for, and the configuration file that it names; it wins over the file."""
    parser = _parser()
    options = parser.parse_args(arguments)
    fields: config.Fields = {}
    if options.config:
        try:
            values, fields = config.read(options.config, OPTIONS)
        except TrainingError as error:
            parser.error(str(error))
        options = parser.parse_args(arguments, argparse.Namespace(**values))
    recipe = RecipeSettings(
        preset=options.preset,
        backbone=options.backbone,
        backbone_weights=options.backbone_weights,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        fields=fields,
    )
    models, store = folder_and_store(options.models)
    return TrainSettings(
        data=data_of(options),
        max_unreadable=options.max_unreadable,
        layout=options.layout,
        labels=options.labels,
        validation_images=options.validation_images,
        image_size=options.image_size,
        resize=options.resize,
        cache=options.cache,
        models=models,
        store=store,
        name=options.name,
        run=options.run,
        fresh=options.fresh,
        publish_anyway=options.publish_anyway,
        int8=options.int8,
        pictures=not options.no_pictures,
        minutes=options.minutes,
        budget_ms=options.budget_ms,
        recipe=recipe,
        start_from=options.start_from,
        teachers=tuple(options.teacher or ()),
        deterministic=options.deterministic,
        precision=options.precision,
        cpu=options.cpu,
        arguments=tuple(arguments),
        repeatable=config.repeatable(OPTIONS, vars(options)),
    )


def run(settings: TrainSettings, interruption: Interruption) -> int:
    """Train and publish; return the exit code. See ``training.run`` for what it raises."""
    begun = time.monotonic()
    with start_of_training(cpu=settings.cpu):
        from training.run import train_and_publish

    return train_and_publish(settings, interruption, begun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkroom train",
        usage=_USAGE,
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add(parser, _CONFIG)
    add(parser.add_argument_group("data"), _DATA)
    add(parser.add_argument_group("output"), _OUTPUT)
    recipe = parser.add_argument_group("recipe")
    add(recipe.add_mutually_exclusive_group(), _NETWORK)
    add(recipe, _RECIPE)
    return parser


def _image_size(text: str) -> tuple[int, int]:
    """Parse ``N`` or ``HxW``."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor HEIGHTxWIDTH")
    sides = [int(part) for part in parts]
    if min(sides) < _LEAST_SIDE or max(sides) > _MOST_SIDE:
        raise argparse.ArgumentTypeError(f"{text} is not between {_LEAST_SIDE} and {_MOST_SIDE} pixels")
    return sides[0], sides[-1]


_CONFIG = (
    Option(
        "config",
        "TOML file with these options, without their dashes, and a table [recipe] with every setting of the "
        "recipe; options given here win. Each version carries the one of its training",
        kind=Path,
        metavar="FILE",
        in_file=False,
        part_of_run=False,
    ),
)
_DATA = (
    *DATA,
    Option(
        "validation-images",
        "training images to hold out, in the same parts of every class; 0 trains on all "
        f"(default: val/ or a tenth; CIFAR-10: the last {VALIDATION_IMAGES:,})",
        kind=at_least(0),
        metavar="N",
    ),
    Option(
        "image-size",
        "pixels that pictures are scaled to, N for NxN or HxW (default: follows from the pictures)",
        kind=_image_size,
        metavar="N",
    ),
    Option(
        "resize",
        "how: crop cuts out the centre, stretch ignores the aspect ratio (default: crop)",
        choices=get_args(Resize),
    ),
    Option(
        "cache",
        "folder for pixels that do not fit into memory (default: that of --run)",
        kind=Path,
        metavar="DIR",
        part_of_run=False,
    ),
)
_OUTPUT = (
    MODELS,
    Option(
        "name",
        "name of the model (default: that of the folder of pictures, cifar10, or smoke for that preset)",
        kind=model_name,
    ),
    Option(
        "run",
        "folder for checkpoints and TensorBoard logs (default: NAME under runs, or under $RUN_DIR)",
        kind=Path,
        metavar="DIR",
        part_of_run=False,
    ),
    Option("fresh", "start over, even where a run could be resumed", switch=True, in_file=False, part_of_run=False),
    Option("publish-anyway", "publish even where it is worse than the version before", switch=True, part_of_run=False),
    Option(
        "int8",
        "also quantise to int8; kept unless it costs more than 0.2 points of accuracy on held-out images, beyond "
        "noise, or, with fewer than 50 of these, gives other labels (default: with a pretrained network)",
        switch=True,
        negatable=True,
    ),
    NO_PICTURES,
)
_NETWORK = (
    Option(
        "preset",
        "fast, standard or best, which cost 79, 248 and 811 MFLOP a picture; quick, the network of standard in a "
        "quarter of its time; smoke, made-up pictures in a minute (default: standard for CIFAR-10; for other data it "
        "follows from that)",
        choices=tuple(sorted(PRESETS)),
    ),
    Option(
        "backbone",
        f"pretrained network to start from: {', '.join(reversed(bundled()))} are here without a download, others come "
        "from keras.applications, e.g. MobileNetV3Small; a wrong name lists all. none trains the project's own "
        f"network from random weights (default: {DEFAULT} for photographs, none for tiny pictures)",
        choices=(*sorted(BACKBONES), OWN_NETWORK),
        metavar="NAME",
    ),
    Option(
        "budget-ms",
        "choose the most accurate of the pretrained networks that answers within N milliseconds here, in int8",
        kind=positive,
        metavar="N",
        part_of_run=False,  # another measurement might choose another one; the recipe has its name
    ),
)
"""What decides on the network; one of them at most."""
_RECIPE = (
    Option(
        "backbone-weights",
        "file with the backbone's weights, without its top; imagenet takes them from Keras's cache or downloads "
        "them, none begins at random (default: imagenet)",
        metavar="PATH",
    ),
    Option(
        "start-from",
        "begin with the weights of a published version, e.g. models/cifar10/5",
        kind=Path,
        metavar="VERSION",
    ),
    Option(
        "teacher",
        "learn the answers of a published version as well as the labels; of several versions, their mean. A small "
        "network gets better by learning from a larger one",
        kind=Path,
        metavar="VERSION",
        several=True,
    ),
    Option(
        "minutes",
        "for tuning a pretrained network, once its new head is published; 0 leaves it at the head (default: half a "
        "second for each picture, 8 to 25 minutes)",
        kind=not_negative,
        metavar="N",
    ),
    Option("epochs", "passes over the training images", kind=at_least(1), metavar="N"),
    Option("batch-size", "images a step; the learning rate follows in proportion", kind=at_least(1), metavar="N"),
    Option("learning-rate", "peak learning rate for a batch of 500 images", kind=positive, metavar="RATE"),
    Option("seed", "seed of all chance (default: 0)", kind=at_least(0), metavar="N"),
    Option(
        "deterministic",
        "the same seed gives the same weights on a GPU too, more slowly; on a CPU it always does",
        switch=True,
    ),
    PRECISION,
    CPU,
)
OPTIONS = (*_CONFIG, *_DATA, *_OUTPUT, *_NETWORK, *_RECIPE)
"""The options of a training, in the order of its help and of its configuration file."""
