"""What was found in a folder of pictures: the record that a check of it leaves and a report shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Example:
    """A picture that a finding is about: its path below the folder of the data, and what is the matter with it.

    ``image`` is uint8 [H, W, 3] of any size; None where there is nothing to see.
    """

    name: str
    note: str
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found, such as pictures that are in the training and in the test.

    ``kind`` is a heading and ``advice`` a sentence. ``count`` is how many were found; the ``examples`` may be fewer.
    """

    kind: str
    count: int
    advice: str
    examples: tuple[Example, ...] = ()
