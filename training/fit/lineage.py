"""What a run is on record for, and what follows from such a record: its own, or that of a version it built on.

The record of a run stands in its checkpoints and, under ``training``, in a version's metadata.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from artifact import Metadata
from training.fit.recipe import Recipe

Record = dict[str, Any]
"""Settings by their names, of kinds that JSON has."""


@dataclass(frozen=True)
class Origin:
    """A published version that a training built on; ``training`` is the record of the version's own."""

    name: str
    version: int
    accuracy: float
    training_seconds: float
    training: Record

    @classmethod
    def of(cls, metadata: Metadata) -> "Origin":
        """Return the version with this ``metadata``."""
        accuracy = metadata.metrics.accuracy
        return cls(metadata.name, metadata.version, accuracy, metadata.training_seconds, metadata.training)


@dataclass(frozen=True)
class RunSettings:
    """What makes two runs the same: resuming one with the settings of another would give neither.

    ``data`` is the digest of the data set and ``pictures`` says in words what its pictures were brought to, as
    ``backbone_weights`` says which ones those of the recipe are.
    """

    recipe: Recipe
    backbone_weights: str | None
    data: str
    pictures: str
    validation_images: int
    start_from: Origin | None = None
    teachers: tuple[Origin, ...] = ()

    def record(self) -> Record:
        """Return the settings as checkpoints and metadata keep them."""
        return {
            **asdict(self.recipe),
            "widths": list(self.recipe.widths),
            "backbone_weights": self.backbone_weights,
            "data": self.data,
            "pictures": self.pictures,
            "validation_images": self.validation_images,
            "start_from": asdict(self.start_from) if self.start_from else None,
            "teachers": [asdict(teacher) for teacher in self.teachers] or None,
        }


@dataclass(frozen=True)
class Lineage:
    """What a training held out and smoothed, and the lineages of the versions that it built on."""

    validation_images: int
    label_smoothing: float
    taught: bool
    built_on: "tuple[Lineage, ...]"

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Lineage":
        """Return what ``record`` says, of a run or in a version's metadata; in another trainer's, nothing is held out.

        Older records have one teacher, by another name.
        """
        older = record.get("teacher")
        teachers = record.get("teachers") or ([older] if older else [])
        origins = filter(None, [record.get("start_from"), *teachers])
        return cls(
            validation_images=record.get("validation_images", 0),
            label_smoothing=record.get("label_smoothing", 0.0),
            taught=bool(teachers),
            built_on=tuple(cls.read(origin.get("training", {})) for origin in origins),
        )

    def held_out(self) -> int:
        """Return how many images, counted from the end, the training and all that it built on left out."""
        return min([self.validation_images, *(each.held_out() for each in self.built_on)])

    def smoothing(self) -> float | None:
        """Return the label smoothing of the training, None where a teacher's answers took its place."""
        return None if self.taught else self.label_smoothing


def in_words(value: Any) -> str:
    """Return a setting of a record in words; of versions that it built on, what tells each from others."""
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return "; ".join(map(in_words, value))
    if not isinstance(value, dict):
        return str(value)
    version, training = f"{value['name']} version {value['version']}", value["training"]
    accuracy, minutes = f"{version}: {value['accuracy']:.2%}", value["training_seconds"] / 60
    if "epochs" not in training:  # it was not trained here
        return accuracy
    return f"{accuracy} after {training['epochs']} epochs, {minutes:.1f} minutes"
