"""FastAPI on uvicorn around the service's engine: a process for each core, with an engine of one thread; no batches.

MODEL names the version's folder:

    MODEL=models/cifar10/5 uvicorn --factory --workers 2 --no-access-log benchmarks.rivals.per_core:create_app
"""

from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, UploadFile

from benchmarks.rivals.network import Network


def create_app() -> FastAPI:
    """Return the application, with the network loaded."""
    app = FastAPI()
    network = Network(threads=1)

    # On the loop, since the process has one core anyway: a change of threads would only add to it.
    @app.post("/predict")
    async def predict(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """Classify the picture in the field ``image``."""
        [answer] = network.predict(network.decode(await image.read())[np.newaxis])
        return answer

    @app.post("/predict/batch")
    async def predict_batch(images: Annotated[list[UploadFile], File()]) -> dict[str, Any]:
        """Classify the pictures in the fields ``images``."""
        pixels = [network.decode(await image.read()) for image in images]
        return {"success": True, "results": network.predict(np.stack(pixels))}

    return app
