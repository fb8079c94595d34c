"""The versions of a model side by side: what the metadata of each tell, for people."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from artifact import InvalidVersion, Metadata, read_metadata, version_path
from artifact.accuracy import accuracy_in_words
from service.inference.loaded import LoadedModel
from service.inference.registry import Registry

_MOST_VERSIONS = 6  # the newest, beside the one that answers


class Table(NamedTuple):
    """Versions as columns: the head of each, and the rows below it, each with its name.

    With the head stands the address of the version's own page, None where it has none, or where that is this one.
    """

    head: list[tuple[str, str | None]]
    rows: list[tuple[str, list[str]]]


def side_by_side(registry: Registry, model: LoadedModel) -> Table | None:
    """Return ``model`` and the newest other versions on disk that can be read; None where there is no other one."""
    others = [version for version in registry.available if version != model.version][-_MOST_VERSIONS:]
    read = ((version, _read(registry, model.name, version)) for version in others)
    found = {version: metadata for version, metadata in read if metadata} | {model.version: model.metadata}
    if len(found) == 1:
        return None
    columns = [found[version] for version in sorted(found)]
    answering, loaded = registry.shares(), {each.version for each in registry.loaded} - {model.version}
    head = [
        (
            f"{version}, answers now" if version in answering else str(version),
            f"card?{urlencode({'model': model.name, 'version': version})}" if version in loaded else None,
        )
        for version in sorted(found)
    ]
    return Table(head, _rows(columns))


def _read(registry: Registry, name: str, version: int) -> Metadata | None:
    try:
        return read_metadata(version_path(registry.models, name, version))
    except InvalidVersion:  # it is among the refused
        return None


def _rows(columns: Sequence[Metadata]) -> list[tuple[str, list[str]]]:
    rows = [
        ("Right", [_accuracy(each) for each in columns]),
        ("Calibration error", [_share(each.metrics.expected_calibration_error, each) for each in columns]),
        ("Right in int8", [f"{each.int8.accuracy:.2%}" if each.int8 else "" for each in columns]),
        ("Labels", [f"{len(each.labels):,}" for each in columns]),
        ("Input", [f"{each.input.width}x{each.input.height} pixels" for each in columns]),
        ("Cost of a picture", [f"{each.megaflops:,.0f} MFLOP" for each in columns]),
        ("Parameters", [f"{each.parameters:,}" for each in columns]),
        ("Created", [each.created[:10] for each in columns]),
    ]
    return [(name, cells) for name, cells in rows if any(cells)]


def _accuracy(metadata: Metadata) -> str:
    metrics = metadata.metrics
    if not metrics.images:
        return "not measured"
    return accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)


def _share(value: float | None, metadata: Metadata) -> str:
    return "" if value is None or not metadata.metrics.images else f"{value:.2%}"
