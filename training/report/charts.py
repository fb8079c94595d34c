"""Diagrams as SVG inside of a page, in its colours: its style says how the classes that are named here look.

Matplotlib's SVG takes twenty times the bytes, with every letter as a path, and has one set of colours.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from training.evaluation.accuracy import Bins

Series = Sequence[tuple[str, Sequence[float]]]
"""Values by the name of their line; the style has looks for two."""

Name = Callable[[float], str]

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 348, 10, 250  # pixels: where the values of a diagram are drawn
_WIDTH, _HEIGHT = 372, 290
_COUNTS = 60  # pixels: how high the longest bar of counts is
_TICKS = 4
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability(bins: Bins, before: Bins | None = None) -> Markup:
    """Draw how often answers are right against how sure they are, and below it how many are that sure.

    ``before`` are those before the calibration.
    """
    width = 1 / len(bins.counts)
    parts = [*_grid(_QUARTERS, _QUARTERS, _percent, _percent)]
    for place, (count, accuracy) in enumerate(zip(bins.counts, bins.accuracy, strict=True)):
        if count:
            parts.append(_rectangle("bar", place * width, width, _y(accuracy), _BOTTOM))
    parts.append(_line("ideal", [0.0, 1.0], [0.0, 1.0]))
    if before is not None:
        some = before.counts > 0
        parts += _points("line-1", before.confidence[some], before.accuracy[some])
    most = math.log1p(bins.counts.max())
    base = _HEIGHT + _COUNTS
    for place, count in enumerate(bins.counts):
        height = _COUNTS * math.log1p(count) / most
        parts.append(_rectangle("count", place * width, width, base - height, base))
    parts.append(_text("how sure the answer is", (_LEFT + _RIGHT) / 2, _BOTTOM + 34, "middle"))
    return _drawing("Reliability diagram: how often answers are right, by how sure they are", base + 4, parts)


def curves(quantity: str, series: Series) -> Markup:
    """Draw the values of each line over the epochs, which count from 1."""
    values = [value for _, line in series for value in line]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    epochs = max(len(line) for _, line in series)
    span = max(epochs - 1, 1)
    marks = [mark for mark in _nice(low, high) if low <= mark <= high]
    numbers = sorted({1, *(round(mark) for mark in _nice(1, epochs) if 1 <= round(mark) <= epochs), epochs})
    if len(numbers) > 2 and numbers[-1] - numbers[-2] < epochs / 12:
        del numbers[-2]  # it would run into the last one

    parts = [
        *_grid([(number - 1) / span for number in numbers], [(mark - low) / (high - low) for mark in marks],
               lambda place: str(round(place * span + 1)), lambda share: f"{low + share * (high - low):.3g}"),
        _text("epoch", (_LEFT + _RIGHT) / 2, _BOTTOM + 34, "middle"),
    ]  # fmt: skip
    for number, (_, line) in enumerate(series):
        places = [place / span for place in range(len(line))]
        shares = [(value - low) / (high - low) for value in line]
        draw = _points if len(line) == 1 else lambda *values: [_line(*values)]
        parts += draw(f"line-{number}", places, shares)
    return _drawing(f"{quantity.capitalize()} after each epoch", _HEIGHT, parts)


def _drawing(name: str, height: float, parts: Iterable[str]) -> Markup:
    text = "".join(parts)
    return Markup(  # noqa: S704 - made here of numbers and fixed words
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{name}">{text}</svg>'
    )


def _grid(across: Iterable[float], up: Iterable[float], name_x: Name, name_y: Name) -> Iterable[str]:
    """Yield lines and their names at the shares ``across`` and ``up`` of the diagram."""
    for share in up:
        yield f'<path class="grid" d="M{_LEFT} {_y(share):.1f}H{_RIGHT}"/>'
        yield _text(name_y(share), _LEFT - 6, _y(share) + 4, "end")
    for share in across:
        yield _text(name_x(share), _x(share), _BOTTOM + 16, "middle")


def _line(kind: str, xs: Iterable[float], ys: Iterable[float]) -> str:
    points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _points(kind: str, xs: Iterable[float], ys: Iterable[float]) -> list[str]:
    """Return a line with a dot at every value."""
    places = list(zip(xs, ys, strict=True))
    dots = [f'<circle class="{kind}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3"/>' for x, y in places]
    return [_line(kind, [x for x, _ in places], [y for _, y in places]), *dots]


def _rectangle(kind: str, left: float, width: float, top: float, bottom: float) -> str:
    x, end = _x(left), _x(left + width)
    return f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="{end - x:.1f}" height="{bottom - top:.1f}"/>'


def _text(text: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _x(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _y(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _nice(low: float, high: float) -> list[float]:
    """Return about ``_TICKS`` round numbers that lie around and between ``low`` and ``high``."""
    rough = (high - low) / _TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.floor(low / step)
    return [number * step for number in range(first, math.ceil(high / step) + 1)]
