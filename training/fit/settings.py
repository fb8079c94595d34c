"""What a user asks of a training. Without Keras, so that it is there before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from artifact.metadata import Resize
from training.data.folders import Layout

Precision = Literal["auto", "float32", "bfloat16"]
"""The arithmetic of a training; ``auto`` is what the hardware is good at."""


@dataclass(frozen=True)
class RecipeSettings:
    """What is asked of the recipe; None where it is left open, as ``training.fit.recipe.Recipe`` says what each is.

    ``fields`` are those of the table [recipe] of a configuration file.
    """

    preset: str | None = None
    backbone: str | None = None  # OWN_NETWORK where none is wanted
    backbone_weights: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainSettings:
    """What is asked of a training and its publishing; None where it is left open.

    ``store`` is the address of the object store that versions go to, of which ``models`` then has a copy.
    ``arguments`` are those of the command line that says so. ``repeatable`` are the values of all options that make a
    difference to the result, by their names in a configuration file, in the order in which that has them.
    """

    data: Path | None
    max_unreadable: float
    layout: Layout | None
    labels: Path | None
    validation_images: int | None
    image_size: tuple[int, int] | None
    resize: Resize | None
    cache: Path | None
    models: Path
    store: str | None
    name: str | None
    run: Path | None
    fresh: bool
    publish_anyway: bool
    int8: bool | None
    pictures: bool
    minutes: float | None
    budget_ms: float | None
    recipe: RecipeSettings
    start_from: Path | None
    teachers: tuple[Path, ...]
    deterministic: bool
    precision: Precision
    cpu: bool
    arguments: tuple[str, ...]
    repeatable: Mapping[str, object]
