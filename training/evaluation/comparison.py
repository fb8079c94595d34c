"""Two classifiers on the same pictures, in figures: what ``compare`` prints."""

from typing import Any

from artifact.accuracy import accuracy_beside, accuracy_in_words, accuracy_interval
from training.evaluation.accuracy import Evaluation
from training.evaluation.paired import Paired, better_in_words
from training.names import printable


class Comparison:
    """What two versions, A and B, answered to the same pictures; their evaluations have the same order of labels."""

    def __init__(self, a: Evaluation, b: Evaluation) -> None:
        self._labels = a.labels
        self._true = a.split.classes
        self._measured_on = a.measured_on
        self._differ = a.predicted != b.predicted  # [N]
        self._right = a.right, b.right
        self._paired = Paired.count(*self._right)

    def record(self) -> dict[str, Any]:
        """Return the figures for ``json.dumps``."""
        paired = self._paired
        return {
            "measured_on": self._measured_on,
            "images": paired.images,
            "accuracies": paired.accuracies,
            "accuracies_95": [accuracy_interval(int(right.sum()), paired.images) for right in self._right],
            "difference": paired.difference,
            "difference_95": paired.interval(),
            "both_right": paired.both,
            "only_first_right": paired.only_first,
            "only_second_right": paired.only_second,
            "both_wrong": paired.neither,
            "p": paired.p_different(),
            "answered_differently": int(self._differ.sum()),
            "recalls": self._recalls(),
        }

    def table(self) -> str:
        """Return the figures for people."""
        paired = self._paired
        low, high = paired.interval()
        recalls = self._recalls()
        width = max(len("accuracy"), *map(len, map(printable, recalls)))
        both_wrong = int((self._differ & ~self._right[0] & ~self._right[1]).sum())
        first, second = paired.accuracies
        accuracies = (
            f"A has {accuracy_in_words(first, paired.images, self._measured_on)}, "
            f"B {accuracy_beside(second, paired.images)}."
        )
        counts = (
            f"Both get {paired.both:,} right, only A {paired.only_first:,}, only B {paired.only_second:,}, "
            f"neither {paired.neither:,}."
        )
        lines = [
            f"{'recall':{width}}        A        B   B - A",
            *(
                f"{printable(label):{width}}  {a:7.2%}  {b:7.2%}  {100 * (b - a):+6.2f}"
                for label, (a, b) in recalls.items()
            ),
            f"{'accuracy':{width}}  {first:7.2%}  {second:7.2%}  {100 * paired.difference:+6.2f}",
            accuracies,
            f"The difference is between {100 * low:+.2f} and {100 * high:+.2f} points, at a confidence of 95%.",
            counts,
            f"They answer {int(self._differ.sum()):,} differently, {both_wrong:,} of them both wrong.",
            self.verdict("A", "B"),
        ]
        return "\n".join(lines)

    def verdict(self, a: str, b: str) -> str:
        """Return the sentence that says which is better, if one is; the first is called ``a``, the second ``b``."""
        p = self._paired.p_different()
        better = b if self._paired.difference > 0 else a
        return f"McNemar's exact test: p = {p:.2g}; {better_in_words(p, better)}."

    def _recalls(self) -> dict[str, list[float]]:
        """Return the recalls of both by label, where there are pictures of it."""
        return {
            label: [float(right[self._true == index].mean()) for right in self._right]
            for index, label in enumerate(self._labels)
            if (self._true == index).any()
        }
