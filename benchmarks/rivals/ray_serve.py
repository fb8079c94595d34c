"""Ray Serve around the service's engine: its batches, without waiting for more, in a replica with all cores.

MODEL names the version's folder; the variable is Ray's setting for throughput:

    MODEL=models/cifar10/5 RAY_SERVE_THROUGHPUT_OPTIMIZED=1 python -m benchmarks.rivals.ray_serve 8005
"""

import signal
import sys
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from benchmarks.rivals.network import Network
from imaging import Pixels
from machine import usable_cores


@serve.deployment(max_ongoing_requests=100)
class Classifier:
    """Classifies the picture that is the body, or the field ``image`` of a form."""

    def __init__(self) -> None:
        self._network = Network()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0)
    async def predict(self, images: list[Pixels]) -> list[dict[str, Any]]:
        """Return the answers to a batch, each uint8 [H, W, 3]."""
        return self._network.predict(np.stack(images))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer a request."""
        if request.headers["content-type"].startswith("multipart/"):
            async with request.form() as form:
                file = await form["image"].read()  # type: ignore[union-attr]
        else:
            file = await request.body()
        answer: dict[str, Any] = await self.predict(self._network.decode(file))
        return answer


if __name__ == "__main__":
    ray.init(num_cpus=usable_cores(), include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classifier.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
