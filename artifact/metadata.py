"""The metadata of a model version: a typed record, kept as JSON in ``assets.extra/metadata.json``."""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from artifact.errors import InvalidVersion
from artifact.files import read_regular
from artifact.layout import METADATA

SCHEMA_VERSION = 1

MOST_BYTES_OF_METADATA = 8 * 1024**2  # of its file; twenty thousand classes take three million

Resize = Literal["crop", "stretch"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Task = Literal["multi-label"]


@dataclass(frozen=True)
class Input:
    """The picture that the model takes, and how any other picture becomes one.

    ``height`` and ``width`` are in pixels. ``resize`` is ``crop`` (scale until the picture covers the input, cut out
    the centre) or ``stretch`` (ignore the aspect ratio); ``interpolation`` names Pillow's filter.
    """

    height: int
    width: int
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"


@dataclass(frozen=True)
class Metrics:
    """What was measured, and on which images.

    ``accuracy`` and ``expected_calibration_error`` are fractions of 1; the latter is None where only the accuracy is
    known, as of a network that others have measured. ``per_class`` maps a label to its ``precision`` and ``recall``.
    Where a picture may have several labels, the ``accuracy`` is the share of pictures of which all labels are told and
    no others, and ``per_class`` has the ``average_precision`` as well.
    ``out_of_distribution`` maps each kind of pictures that are nothing like the training's to ``auroc``, the
    probability that one of them is less familiar than one of the ``images``, and where the version has a threshold, to
    the share that is called ``unfamiliar``.
    """

    measured_on: str
    images: int
    accuracy: float
    expected_calibration_error: float | None = None
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    out_of_distribution: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Int8:
    """What the quantised network answers right, beside the network itself, on pictures that neither was made with.

    ``accuracy`` is that of the quantised network and ``float32_accuracy`` the network's own, both fractions of 1 and
    over the same ``images`` pictures; ``calibration_images`` is how many training pictures its ranges were taken from.
    Where the ``images`` were too few to judge it by, ``agreement`` is the share of ``agreement_images`` pictures, those
    of the training among them, to which both networks give the same label.
    """

    measured_on: str
    images: int
    accuracy: float
    float32_accuracy: float
    calibration_images: int
    agreement: float | None = None
    agreement_images: int | None = None


@dataclass(frozen=True)
class Calibration:
    """How the network's probabilities were made to mean what they say, on pictures that no training has seen.

    Inside the graph the share ``label_smoothing`` is taken out of the probabilities that the training gave to all
    classes alike, and their logarithms are divided by ``temperature`` (arXiv 1706.04599). That was fitted on the
    ``images`` pictures that the other figures are of as well, and so was the share where a teacher's answers took the
    labels' place: the mean negative log-likelihood, in nats, and the expected calibration error, a fraction of 1, with
    both and, ``before``, with neither.
    """

    temperature: float
    measured_on: str
    images: int
    negative_log_likelihood: float
    negative_log_likelihood_before: float
    expected_calibration_error: float
    expected_calibration_error_before: float
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Familiarity:
    """From which score on a picture counts as familiar: like what the network was trained on.

    The score is the output ``familiarity``. Of the ``images`` pictures that no training has seen, the ``share``, a
    fraction of 1, scored at least ``threshold``.
    """

    threshold: float
    share: float
    measured_on: str
    images: int


@dataclass(frozen=True)
class MultiLabel:
    """What was measured over all labels, where a picture may have several, on the images of the metrics.

    The mean of the labels' average precision; F1 of all decisions together (``micro_f1``) and the mean of the labels'
    F1 (``macro_f1``), at the thresholds. ``intervals_95`` are the 95% confidence intervals by these names, low and
    high. ``thresholds_chosen_on`` says in words which pictures the thresholds were chosen on. ``scales`` are the
    ``slope`` and ``bias`` of the labels whose logits were calibrated each by itself, inside the graph.
    """

    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    intervals_95: dict[str, tuple[float, float]] = field(default_factory=dict)
    thresholds_chosen_on: str = ""
    scales: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Histogram:
    """How many of some numbers lie in each bin; ``edges`` are the borders between the bins, one fewer than these."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """What the version answered to pictures that it had not learned from; its later answers are compared with that.

    ``labels`` maps each label to how many of the ``images`` pictures it was the most probable one of, ``confidence`` is
    of the probabilities that these labels had, and ``familiarity`` of the score of that name, where there is one. What
    the embeddings looked like is in the file ``REFERENCE_EMBEDDING``, of a version that has an embedding.
    """

    measured_on: str
    images: int
    labels: dict[str, int]
    confidence: Histogram
    familiarity: Histogram | None = None


@dataclass(frozen=True)
class Metadata:
    """Everything a reader must know of a model version, and where it came from.

    ``labels`` stand in the order of the model's outputs. ``megaflops`` is the cost of one image's forward pass, two
    operations to a multiply-add. ``created`` is UTC in ISO 8601. ``files`` maps each file's path in the version, with
    forward slashes, to its sha256; the metadata itself is not in it. ``int8`` is there where the version carries the
    quantised network as well, ``calibration`` where its probabilities were calibrated, ``familiarity`` where it tells
    which pictures are like those of the training, and ``reference`` where it tells what answers to expect; what is not
    there is left out of the JSON.

    A picture has one of the labels, unless the ``task`` is ``multi-label``: then the probabilities are those of each
    label by itself, and ``thresholds`` maps each label to the probability, 0 to 1, from which on it is told.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    input: Input
    metrics: Metrics
    parameters: int
    megaflops: float
    created: str
    training: dict[str, Any]
    dataset: dict[str, Any]
    revision: str
    libraries: dict[str, str]
    hardware: str
    training_seconds: float
    files: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    int8: Int8 | None = None
    calibration: Calibration | None = None
    familiarity: Familiarity | None = None
    task: Task | None = None
    thresholds: dict[str, float] | None = None
    multi_label: MultiLabel | None = None
    reference: Reference | None = None

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        record = dataclasses.asdict(self, dict_factory=_present)
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _histogram(edges: list[float], counts: list[int]) -> Histogram:
    return Histogram(tuple(edges), tuple(counts))


def _reference(confidence: dict[str, Any], familiarity: dict[str, Any] | None = None, **others: Any) -> Reference:
    scores = None if familiarity is None else _histogram(**familiarity)
    return Reference(confidence=_histogram(**confidence), familiarity=scores, **others)


_OPTIONAL: dict[str, Callable[..., Any]] = {
    "int8": Int8,
    "calibration": Calibration,
    "familiarity": Familiarity,
    "multi_label": MultiLabel,
    "reference": _reference,
}


def _present(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a record that are not None, which only those may be that can be left out."""
    return {name: value for name, value in fields if value is not None}


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of the model version in folder ``path``.

    Raises:
        InvalidVersion: it is missing, not JSON, of another schema version, or its fields are not as they should be.
    """
    record = _read_record(path)
    if record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version")
        raise InvalidVersion(path, f"{METADATA} has schema version {found!r}; this release reads {SCHEMA_VERSION}")
    try:
        metadata = Metadata(
            **{
                **record,
                "labels": tuple(record["labels"]),
                "input": Input(**record["input"]),
                "metrics": Metrics(**record["metrics"]),
                **{name: type_(**record[name]) for name, type_ in _OPTIONAL.items() if record.get(name) is not None},
            }
        )
    except (KeyError, TypeError) as error:
        raise InvalidVersion(path, f"{METADATA} does not have the expected fields ({error})") from error
    _check_values(path, metadata)
    return metadata


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_regular(path / METADATA, MOST_BYTES_OF_METADATA))
    except FileNotFoundError as error:
        raise InvalidVersion(path, f"{METADATA} is missing") from error
    except OSError as error:
        raise InvalidVersion(path, f"{METADATA} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidVersion(path, f"{METADATA} is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise InvalidVersion(path, f"{METADATA} is not a JSON object")
    return record


def _check_values(path: Path, metadata: Metadata) -> None:
    """Check the values that would break a reader later, far from their cause, if they were wrong."""
    size = metadata.input
    faults = [
        (len(metadata.labels) > 0, "there must be labels"),
        (all(isinstance(label, str) for label in metadata.labels), "labels must be strings"),
        (len(set(metadata.labels)) == len(metadata.labels), "labels must differ from each other"),
        (all(isinstance(side, int) and side > 0 for side in (size.height, size.width)), "input size must be positive"),
        (size.resize in get_args(Resize), f"input.resize must be one of {', '.join(get_args(Resize))}"),
        (
            size.interpolation in get_args(Interpolation),
            f"input.interpolation must be one of {', '.join(get_args(Interpolation))}",
        ),
        (isinstance(metadata.files, dict), "files must map paths to sha256 sums"),
        (
            metadata.familiarity is None or _is_finite(metadata.familiarity.threshold),
            "familiarity.threshold must be a number",
        ),
        (metadata.task in (None, *get_args(Task)), f"task must be {' or '.join(get_args(Task))}, or left out"),
        (
            (metadata.task is None) == (metadata.thresholds is None),
            "a multi-label task has thresholds, and no other has",
        ),
        (
            metadata.thresholds is None or _are_thresholds(metadata.thresholds, metadata.labels),
            "thresholds must map each label to a number from 0 to 1",
        ),
        (
            metadata.reference is None or _is_usable(metadata.reference, metadata.labels),
            "reference must count its images by label, and by ascending edges",
        ),
    ]
    for holds, fault in faults:
        if not holds:
            raise InvalidVersion(path, f"{METADATA}: {fault}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _are_thresholds(thresholds: object, labels: tuple[str, ...]) -> bool:
    return (
        isinstance(thresholds, dict)
        and thresholds.keys() == set(labels)
        and all(_is_finite(value) and 0 <= value <= 1 for value in thresholds.values())
    )


def _is_usable(reference: Reference, labels: tuple[str, ...]) -> bool:
    """Say whether every picture of ``reference`` is counted once in each of its parts."""
    if not isinstance(reference.labels, dict) or not reference.labels.keys() <= set(labels):
        return False
    parts = [list(reference.labels.values())]
    for histogram in filter(None, [reference.confidence, reference.familiarity]):
        if len(histogram.counts) != len(histogram.edges) + 1 or not all(map(_is_finite, histogram.edges)):
            return False
        if any(first >= second for first, second in itertools.pairwise(histogram.edges)):
            return False
        parts.append(list(histogram.counts))
    return all(
        all(isinstance(count, int) and count >= 0 for count in part) and sum(part) == reference.images for part in parts
    )
