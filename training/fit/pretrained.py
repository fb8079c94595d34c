"""The first stage of a training on a pretrained network: a head for what the network makes of the pictures as it is."""

from dataclasses import dataclass

import keras
import numpy as np

from training.data.dataset import Classes, Dataset, Split
from training.fit.features import Features, Vectors, embedder
from training.fit.head import CrossValidation, Linear, cross_validate, fit_head
from training.fit.train import Job
from training.network.backbone import HEAD, build_on_backbone, describe_weights
from training.network.registry import NO_WEIGHTS


@dataclass(frozen=True)
class FittedHead:
    """A head that learned from all pictures of a data set but those of the test, and how it was found.

    ``features`` float32 [N, D] are what the network makes of the N pictures, ``classes`` int64 [N], or [N, labels] of
    several labels, what they show: those to train on first, and then those held out for validation.
    """

    features: Vectors
    classes: Classes
    labels: int
    folds: CrossValidation
    linear: Linear

    def without(self, held_out: int) -> Linear:
        """Return a head that is fitted in the same way, but not to the last ``held_out`` pictures."""
        kept = slice(len(self.features) - held_out)
        folds = self.folds
        return fit_head(self.features[kept], self.classes[kept], self.labels, folds.strength, folds.tolerance)

    def accuracy(self) -> float:
        """Return the share of the pictures that the folds answer right which did not see them."""
        answered = self.folds.logits(self.features).argmax(axis=1)
        return float((answered == self.classes[self.folds.rows]).mean())


def fit(job: Job) -> FittedHead:
    """Fit a head to all pictures of the job's data set but those of the test; what is known of them is in its folder.

    Raises:
        TrainingError: the pretrained weights cannot be had.
        OSError: the folder cannot be written.
    """
    dataset, recipe = job.dataset, job.recipe
    height, width, _ = dataset.input_shape
    weights = describe_weights(recipe.backbone_weights or NO_WEIGHTS)
    file = job.folder.features(recipe.backbone or "", weights, height, width)
    known = Features(file, lambda: embedder(network(job)))
    splits = [split for split in (dataset.train, dataset.validation) if len(split)]
    features = np.concatenate([known.of(split.images) for split in splits])
    classes, labels = np.concatenate([split.classes for split in splits]), len(dataset.labels)
    folds = cross_validate(features, classes, labels, dataset.groups)
    linear = fit_head(features, classes, labels, folds.strength, folds.tolerance)
    return FittedHead(features, classes, labels, folds, linear)


def network(job: Job, head: Linear | None = None) -> keras.Model:
    """Return the pretrained network that the job's recipe names, with ``head`` in place of one that knows nothing."""
    dataset, recipe = job.dataset, job.recipe
    weights = recipe.backbone_weights or NO_WEIGHTS
    model = build_on_backbone(dataset.input_shape, len(dataset.labels), recipe.backbone or "", weights, recipe.seed)
    if head:
        model.get_layer(HEAD).set_weights([head.kernel, head.bias])
    return model


def all_but_test(dataset: Dataset) -> Split:
    """Return the pictures to train on and those held out for validation as one split, without a copy where it can."""
    train, held_out = dataset.train, dataset.validation
    if not len(held_out):
        return train
    together, number = train.images.base, len(train) + len(held_out)
    if together is None or together is not held_out.images.base or together.shape[1:] != train.images.shape[1:]:
        images = np.concatenate([train.images, held_out.images])
    else:
        images = together[:number]  # they lie one behind the other, and all may not fit into memory twice
    return Split(images, np.concatenate([train.classes, held_out.classes]))
