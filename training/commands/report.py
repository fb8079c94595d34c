"""``python -m training report``: a page on a published version, or on what it does otherwise than another one."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact
from artifact import Metadata
from artifact.layout import EXTRA
from training.commands import compared, labelled
from training.commands.compared import Answered
from training.commands.labelled import Source
from training.commands.options import DATA, NO_PICTURES, SPLIT, add
from training.errors import Interruption, TrainingError
from training.publish import configuration
from training.publish.conversion import whole_file
from training.publish.report import Shown, before_calibration, comparison_of, gather, page_of
from training.report.contents import Contents


@dataclass(frozen=True)
class ReportSettings:
    """Which version is shown on which pictures, beside which other one, and the file that the page goes to."""

    version: Path
    compare: Path | None
    source: Source
    pictures: bool
    output: Path | None


def parse(arguments: Sequence[str]) -> ReportSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom report",
        description="Write a page on what a published version gets right and wrong on any labelled pictures: one HTML "
        "file that needs no network. With --compare it shows what has changed since another version.",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="VERSION",
        help="an earlier version, which knows the same labels: show both on the same pictures, and which ones are "
        "answered rightly or wrongly now",
    )
    add(parser, (*DATA, SPLIT, NO_PICTURES))
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: NAME-VERSION.html in the current folder); the version stays as it is",
    )
    options = parser.parse_args(arguments)
    source = Source.of(options)
    return ReportSettings(options.version, options.compare, source, not options.no_pictures, options.output)


def run(settings: ReportSettings, interruption: Interruption) -> int:
    """Write the page; return the exit code.

    Raises:
        InvalidVersion: a folder is no version that can be trusted.
        TrainingError: the data cannot be read or has labels that a version lacks, or the file cannot be written.
        OSError: the disk is full.
    """
    metadata = artifact.validate(settings.version)
    output = settings.output or Path(f"{metadata.name}-{metadata.version}.html")
    for version in filter(None, (settings.version, settings.compare)):
        if output.resolve().is_relative_to(version.resolve()):
            raise TrainingError(f"{output} lies in {version}, which may not be changed; choose another place")
    with whole_file(output) as draft:
        draft.write_text(_page(settings, metadata), encoding="utf-8")
        interruption.check()
    print(f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB).")
    return 0


def _page(settings: ReportSettings, metadata: Metadata) -> str:
    if settings.compare is None:
        pictures = labelled.for_version(metadata, settings.source)
        answered = compared.answered(settings.version, metadata, pictures)
        return page_of(_contents(answered, f"{metadata.name}, version {metadata.version}", settings))
    before, after = compared.both((settings.compare, settings.version), settings.source)
    names = _names(before.metadata, metadata)
    title = f"{metadata.name}: {names[0]} and {names[1]}"
    return comparison_of(title, *map(_contents, (before, after), names, (settings, settings)))


def _names(before: Metadata, after: Metadata) -> tuple[str, str]:
    """Return short names of two versions that tell one from the other."""
    if before.name != after.name:
        return f"{before.name} {before.version}", f"{after.name} {after.version}"
    if before.version != after.version:
        return f"version {before.version}", f"version {after.version}"
    return "before", "after"


def _contents(answered: Answered, title: str, settings: ReportSettings) -> Contents:
    metadata, version = answered.metadata, answered.version
    shown = Shown(
        answered.pictures.dataset,
        settings.pictures,
        warnings=labelled.limits(version, metadata, answered.pictures),
        configuration=version / EXTRA / configuration.FILE,
    )
    uncalibrated = before_calibration(answered.evaluation, metadata.calibration)
    return gather(version, metadata, title, answered.evaluation, shown, uncalibrated)
