"""One picture of a request, whichever way it came."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.inference.errors import ServiceError, TooManyItems


@dataclass(frozen=True)
class Item:
    """One picture of a request: encoded bytes, uint8 pixels [H, W, 3], or what is wrong with it."""

    content: bytes | npt.NDArray[np.uint8] | ServiceError
    filename: str | None = None


def check_count(items: int, max_items: int) -> None:
    """Raise TooManyItems if a request has more than ``max_items``."""
    if items > max_items:
        raise TooManyItems(f"There are {items} pictures; at most {max_items} are allowed in one request.")
