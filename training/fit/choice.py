"""Choose the recipe: that of a configuration file, a preset, or else what follows from the data."""

import dataclasses
from typing import Any

from training.data.dataset import Dataset
from training.errors import TrainingError
from training.fit import defaults
from training.fit.recipe import Recipe, recipe
from training.fit.settings import RecipeSettings
from training.network.registry import BACKBONES, DEFAULT, IMAGENET_WEIGHTS, OWN_NETWORK

_TINY = 64
"""Pictures with a shorter side below this have too few pixels for what a network has learned of photographs."""


def backbone_for(asked: RecipeSettings, side: int | None) -> tuple[str | None, str]:
    """Return the pretrained network to begin with, None for the project's own, and a sentence that says why.

    ``side`` is the shorter side in pixels that pictures of a folder have, or are to be brought to; None where the data
    is no folder of pictures. The sentence is empty where the network was asked for.
    """
    if asked.backbone:
        return (None if asked.backbone == OWN_NETWORK else asked.backbone), ""
    of_this_recipe = asked.fields.get("preset") in (None, asked.preset)
    if asked.preset or (of_this_recipe and "backbone" in asked.fields):
        named = asked.fields.get("backbone") if of_this_recipe else None
        return (None if named == OWN_NETWORK else named), ""
    if side is None:
        return None, ""
    if side < _TINY:
        return None, f"The project's own network, since pictures of {side} pixels are tiny; --backbone takes another."
    known = BACKBONES[DEFAULT]
    return DEFAULT, (
        f"{DEFAULT}, trained on ImageNet's photographs ({known.imagenet:.1%} right there), gets a new head, which "
        "takes no training from nothing; --backbone takes another, or none."
    )


def choose(asked: RecipeSettings, dataset: Dataset, *, taught: bool) -> Recipe:
    """Return the recipe for a training on ``dataset``; ``taught`` says that a teacher's answers smooth labels.

    A configuration file whose [recipe] names its preset has a recipe of its own, unless another preset is asked for.
    Without the name, its fields change what is chosen. Options win over both.

    Raises:
        TrainingError: ``asked`` contradicts itself.
    """
    if asked.backbone_weights and asked.backbone in (None, OWN_NETWORK):
        raise TrainingError("--backbone-weights has no effect without --backbone; give both")
    fields, own = asked.fields, asked.fields.get("preset")
    if own is not None and own == asked.preset:
        chosen = Recipe(**{**fields, **_options(asked)})
    else:
        chosen = _preset_or_default(asked, dataset)
        if own is None:
            chosen = dataclasses.replace(chosen, **{**fields, **_options(asked)})
    if taught:
        chosen = dataclasses.replace(chosen, label_smoothing=0.0)  # a teacher's answers are smooth
    if dataset.multi_label:
        # Smoothed, every label would be half as probable as the smoothing is large, also the rarest; and what is shown
        # more often for one label has others as well.
        chosen = dataclasses.replace(chosen, label_smoothing=0.0, balance=False)
    return dataclasses.replace(chosen, batch_size=min(chosen.batch_size, len(dataset.train)))


def _options(asked: RecipeSettings) -> dict[str, Any]:
    """Return the fields of a recipe that options give, apart from its preset."""
    values = {field.name: getattr(asked, field.name) for field in dataclasses.fields(asked)}
    return {name: value for name, value in values.items() if name not in ("preset", "fields") and value is not None}


def _preset_or_default(asked: RecipeSettings, dataset: Dataset) -> Recipe:
    """Return the preset that was asked for, CIFAR-10's standard one, or else a recipe that follows from the data."""
    changes = {"epochs": asked.epochs, "batch_size": asked.batch_size, "seed": asked.seed}
    rate: dict[str, Any] = {} if asked.learning_rate is None else {"learning_rate": asked.learning_rate}
    preset = asked.preset or ("standard" if dataset.name == "CIFAR-10" and not asked.backbone else None)
    if preset:
        return recipe(preset, **changes, **rate)
    weights = (asked.backbone_weights or IMAGENET_WEIGHTS) if asked.backbone else None
    chosen = defaults.for_data(dataset, backbone=asked.backbone, backbone_weights=weights, **changes)
    if not chosen.pretrained:  # how that is tuned is told when it is
        print(defaults.explain(dataset, chosen))
    return dataclasses.replace(chosen, **rate)
