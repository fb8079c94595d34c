"""LitServe around the service's engine: its batches, without waiting for more, and its faster queue.

MODEL names the version's folder:

    MODEL=models/cifar10/5 python -m benchmarks.rivals.lit 8004
"""

import sys
from typing import Any

import litserve
from fastapi import Request

from benchmarks.rivals.network import Network
from imaging import Pixels


class Classifier(litserve.LitAPI):
    """Classifies the picture in the field ``image`` of a form."""

    def setup(self, device: str) -> None:
        """Load the network, in the process that runs it."""
        self._network = Network()

    def decode_request(self, request: Request) -> Pixels:
        """Return the picture as uint8 [H, W, 3]. LitServe calls the form a request."""
        return self._network.decode(request["image"].file.read())

    def predict(self, x: Any) -> list[dict[str, Any]]:
        """Return the answers to a batch, uint8 [N, H, W, 3]."""
        return self._network.predict(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one picture."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(max_batch_size=32, batch_timeout=0.001), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="error", generate_client_file=False
    )
