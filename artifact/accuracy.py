"""How exact an accuracy is: what was measured on few pictures stands beside its interval, wherever it is told."""

import math

_QUANTILE = 1.959964  # of the normal distribution, for 95%
_EXACT = 1000  # pictures


def accuracy_interval(right: int, images: int) -> tuple[float, float]:
    """Return the 95% confidence interval of an accuracy, fractions of 1: ``right`` of at least one ``images``.

    It is Wilson's (Journal of the American Statistical Association 22, 1927), which keeps its confidence on few
    pictures, and where all or none are right.
    """
    accuracy, spread = right / images, _QUANTILE**2 / images
    middle = (accuracy + spread / 2) / (1 + spread)
    half = _QUANTILE / (1 + spread) * math.sqrt(accuracy * (1 - accuracy) / images + spread / (4 * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy_in_words(accuracy: float, images: int, measured_on: str = "") -> str:
    """Return an accuracy, a fraction of 1, with what it was measured on and, of few pictures, with its interval."""
    details = "; ".join(filter(None, [measured_on, _interval(accuracy, images)]))
    what = "image" if images == 1 else "images"
    return f"{accuracy:.2%} of {images:,} {what}" + (f" ({details})" if details else "")


def accuracy_beside(accuracy: float, images: int) -> str:
    """Return another accuracy of the same ``images`` in words, to stand beside ``accuracy_in_words`` of the first."""
    interval = _interval(accuracy, images)
    return f"{accuracy:.2%}" + (f" ({interval})" if interval else "")


def _interval(accuracy: float, images: int) -> str:
    """Return the interval of an accuracy in words, in percent; nothing where there are pictures enough."""
    if images >= _EXACT:
        return ""
    low, high = accuracy_interval(round(accuracy * images), images)
    return f"95%: {100 * low:.1f} to {100 * high:.1f}"
