"""What is wrong with single pictures, whatever they show: blank, extremely dark or bright, blurred, tiny, odd files."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from training.check.findings import LEAVE_OUT, LOOK_AT, Kind
from training.check.pictures import Facts
from training.data.decoding import NEARLY_BLACK

_BLANK = 4.0  # levels of 255 between percentiles 5 and 95
_DARK, _BRIGHT = 30.0, 235.0  # levels that percentile 95 is below, or percentile 5 above
_BLURRED = 15.0  # variance of the Laplacian: far below what a photograph has in the size that a network takes
_OF_MIDDLE_SHARPNESS = 0.1
_TINY = 64  # pixels of the shorter side, below which there is too little for what a network learned of photographs
_OF_MIDDLE_SIDE = 0.5
_LONG = 4.0  # times its height: a square of its middle shows little of it
_SAME_FORMAT = {"MPO": "JPEG"}  # several pictures in one JPEG

Found = tuple[int, Kind, str, float, str]
"""A picture's place, the kind, what is suggested, how certain that is, and why."""


def find(facts: Sequence[Facts], paths: Sequence[Path]) -> Iterator[Found]:
    """Yield what is wrong with each of the pictures in ``paths``."""
    middle_side = statistics.median_low([min(each.width, each.height) for each in facts])
    middle_sharpness = statistics.median_low([each.sharpness for each in facts])
    least_side = min(_TINY, _OF_MIDDLE_SIDE * middle_side)
    least_sharpness = min(_BLURRED, _OF_MIDDLE_SHARPNESS * middle_sharpness)
    for place, (each, path) in enumerate(zip(facts, paths, strict=True)):
        if each.brightest - each.darkest < _BLANK and each.sharpness < _BLURRED:
            yield place, Kind.BLANK, LEAVE_OUT, 1.0, "all of it has one colour"
        elif found := _hard_to_see(each, least_sharpness):
            yield place, *found
        if min(each.width, each.height) < least_side:
            why = f"{each.width} x {each.height} pixels, where the middle one's shorter side has {middle_side}"
            yield place, Kind.TINY, LOOK_AT, 1.0, why
        if why := _odd(each, path):
            yield place, Kind.ODD, LOOK_AT, 1.0, why


def range_in_words(facts: Sequence[Facts]) -> Iterator[str]:
    """Yield a sentence where most pictures are nearly black, as those of 16 bits that use fewer."""
    if statistics.median([each.brightest for each in facts]) < _DARK:
        yield NEARLY_BLACK


def _hard_to_see(facts: Facts, least_sharpness: float) -> tuple[Kind, str, float, str] | None:
    if facts.brightest < _DARK:
        why = f"95% of it is darker than {facts.brightest / 255:.0%} of white"
        return Kind.DARK, LOOK_AT, 1 - facts.brightest / 255, why
    if facts.darkest > _BRIGHT:
        return (
            Kind.BRIGHT,
            LOOK_AT,
            facts.darkest / 255,
            f"95% of it is brighter than {facts.darkest / 255:.0%} of white",
        )
    if facts.sharpness < least_sharpness:
        why = f"the variance of its Laplacian is {facts.sharpness:.1f}"
        return Kind.BLURRED, LOOK_AT, 1 - facts.sharpness / max(least_sharpness, 1e-9) / 2, why
    return None


def _odd(facts: Facts, path: Path) -> str:
    """Return what is odd about a file that can be read; nothing where nothing is."""
    format_ = _SAME_FORMAT.get(facts.format, facts.format)
    named = Image.registered_extensions().get(path.suffix.lower())
    if named and _SAME_FORMAT.get(named, named) != format_:
        return f"it is named {path.suffix} and is {format_}"
    longer, shorter = max(facts.width, facts.height), min(facts.width, facts.height)
    if longer > _LONG * shorter:
        return f"{facts.width} x {facts.height} pixels: a training sees the square in its middle"
    return ""
