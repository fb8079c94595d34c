"""BentoML around the service's engine: its adaptive batching, a worker with all cores.

MODEL names the version's folder:

    MODEL=models/cifar10/5 bentoml serve --port 8003 benchmarks.rivals.bento:Classifier
"""

from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.rivals.network import Network
from imaging import to_input


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Classifier:
    """Classifies pictures."""

    def __init__(self) -> None:
        self._network = Network()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=32)
    def predict(self, image: list[Image]) -> list[dict[str, Any]]:
        """Classify the pictures of a batch, which come as the field ``image`` of forms.

        BentoML gives pictures that Pillow has opened, so they are decoded by what the service's decoder calls for all
        but JPEGs of just the network's size.
        """
        return self._network.predict(np.stack([to_input(picture, self._network.size) for picture in image]))
