"""The metadata of a model version: a typed record, kept as JSON in ``assets.extra/metadata.json``."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from artifact.errors import InvalidVersion
from artifact.layout import METADATA

SCHEMA_VERSION = 1

Resize = Literal["crop", "stretch"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]


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

    ``accuracy`` and ``expected_calibration_error`` are fractions of 1; ``per_class`` maps a label to its
    ``precision`` and ``recall``.
    """

    measured_on: str
    images: int
    accuracy: float
    expected_calibration_error: float
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """Everything a reader must know of a model version, and where it came from.

    ``labels`` stand in the order of the model's outputs. ``megaflops`` is the cost of one image's forward pass, two
    operations to a multiply-add. ``created`` is UTC in ISO 8601. ``files`` maps each file's path in the version, with
    forward slashes, to its sha256; the metadata itself is not in it.
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

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


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
            }
        )
    except (KeyError, TypeError) as error:
        raise InvalidVersion(path, f"{METADATA} does not have the expected fields ({error})") from error
    _check_values(path, metadata)
    return metadata


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidVersion(path, f"{METADATA} is missing") from error
    except OSError as error:
        raise InvalidVersion(path, f"{METADATA} cannot be read ({error.strerror})") from error
    except ValueError as error:
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
    ]
    for holds, fault in faults:
        if not holds:
            raise InvalidVersion(path, f"{METADATA}: {fault}")
