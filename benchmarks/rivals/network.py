"""The network that the rivals of the same engine serve: the service's own engine and decoder, and nothing around them.

MODEL names the version's folder; PRECISION, auto where it is not set, is the engine's.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from artifact import read_metadata
from imaging import Pixels
from machine import usable_cores, usable_memory
from service.inference.decoding import Decoder
from service.inference.engine import Images, load

TOP = 5  # labels that an answer tells

_MOST_PIXELS = 50_000_000
_PATIENCE = 60.0  # seconds that a large picture may wait for others


class Network:
    """A version in the service's engine, with its decoder."""

    def __init__(self, threads: int | None = None) -> None:
        """Load the version that MODEL names for ``threads`` cores; all of them by default."""
        path = Path(os.environ["MODEL"])
        metadata = read_metadata(path)
        self.size = metadata.input
        self._labels = metadata.labels
        self._engine = load("openvino", path, os.environ.get("PRECISION", "auto"), threads or usable_cores())
        self._decoder = Decoder(_MOST_PIXELS, memory=usable_memory() // 4)

    def decode(self, file: bytes) -> Pixels:
        """Return a picture's file as the network's input, uint8 [H, W, 3]."""
        return self._decoder.decode(file, self.size, time.monotonic() + _PATIENCE)

    def predict(self, images: Images) -> list[dict[str, Any]]:
        """Return an answer for each of ``images``, uint8 [N, H, W, 3]."""
        outputs = self._engine.predict(images)
        probabilities = outputs[:, : len(self._labels)]  # [N, classes]
        best = np.argsort(-probabilities, axis=1)[:, :TOP]  # [N, TOP]
        values = np.take_along_axis(probabilities, best, axis=1)
        return [
            {
                "success": True,
                "predictions": [
                    {"label": self._labels[index], "probability": value}
                    for index, value in zip(indices, row, strict=True)
                ],
            }
            for indices, row in zip(best.tolist(), values.tolist(), strict=True)
        ]
