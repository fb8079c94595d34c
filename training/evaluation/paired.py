"""Whether one classifier is better than another on the same pictures: McNemar's test and the difference's interval."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""A difference is beyond noise where a test's p is below this."""

Right = NDArray[np.bool_]
"""Which pictures a classifier got right, bool [N]."""


def better_in_words(p: float, better: str) -> str:
    """Return whether two classifiers differ beyond noise, by a test's ``p``, and if so that ``better`` is it."""
    if p >= LEVEL:
        return f"no difference beyond noise at a level of {LEVEL:g}"
    return f"{better} is better beyond noise, at a level of {LEVEL:g}"


@dataclass(frozen=True)
class Paired:
    """How often two classifiers were right on the same pictures: both, only one of them, neither.

    The pictures that both got right, or both wrong, say nothing about which is the better one; the other two counts are
    the discordant pairs of McNemar's test.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def count(cls, first: Right, second: Right) -> "Paired":
        """Count pictures by what ``first`` and ``second``, bool [N] each and in the same order, got right."""
        return cls(
            both=int((first & second).sum()),
            only_first=int((first & ~second).sum()),
            only_second=int((~first & second).sum()),
            neither=int((~first & ~second).sum()),
        )

    @property
    def images(self) -> int:
        """The number of pictures."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """The accuracies of both, fractions of 1."""
        return (self.both + self.only_first) / self.images, (self.both + self.only_second) / self.images

    @property
    def difference(self) -> float:
        """The accuracy of the second less that of the first."""
        return (self.only_second - self.only_first) / self.images

    def p_different(self) -> float:
        """Return the two-sided p of McNemar's exact test: how likely so uneven discordant pairs are among equals."""
        return self._p(self.only_second, "two-sided")

    def p_second_worse(self) -> float:
        """Return the one-sided p: how likely a second that is no worse gets so few of the discordant pairs right."""
        return self._p(self.only_second, "less")

    def p_second_better(self) -> float:
        """Return the one-sided p: how likely a second that is no better gets so many of the discordant pairs right."""
        return self._p(self.only_first, "less")

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval of ``difference``.

        The adjusted Wald interval of Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
        Proportions Based on Paired Data" (Journal of Educational and Behavioral Statistics 37, 2012), which keeps its
        confidence on few pictures, too.
        """
        total = self.images + 2
        first, second = (self.only_first + 1) / total, (self.only_second + 1) / total
        centre = second - first
        quantile = NormalDist().inv_cdf((1 + confidence) / 2)
        reach = quantile * ((first + second - centre**2) / total) ** 0.5
        return max(centre - reach, -1.0), min(centre + reach, 1.0)

    def _p(self, successes: int, alternative: str) -> float:
        discordant = self.only_first + self.only_second
        if not discordant:
            return 1.0
        from scipy.stats import binomtest  # takes half a second, which --help need not wait for

        return float(binomtest(successes, discordant, 0.5, alternative=alternative).pvalue)
