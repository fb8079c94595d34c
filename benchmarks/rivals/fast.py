"""FastAPI on uvicorn with a SavedModel loaded by TensorFlow; predictions run in its pool of threads.

MODEL names the version's folder:

    MODEL=models/cifar10/5 uvicorn --port 8002 benchmarks.rivals.fast:app
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from fastapi import FastAPI, UploadFile
from PIL import Image

MODEL = Path(os.environ["MODEL"])
RECORD = json.loads((MODEL / "assets.extra" / "metadata.json").read_text(encoding="utf-8"))
SIZE = (RECORD["input"]["width"], RECORD["input"]["height"])

app = FastAPI()
model: Any = tf.saved_model.load(str(MODEL))
signature = model.signatures["serving_default"]


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, Any]:
    """Classify the picture in the field ``image``."""
    pixels = np.asarray(Image.open(io.BytesIO(image.file.read())).convert("RGB").resize(SIZE))
    probabilities = signature(images=tf.constant(pixels[np.newaxis]))["probabilities"].numpy()[0]
    best = np.argsort(-probabilities)[:5]
    return {
        "success": True,
        "predictions": [
            {"label": RECORD["labels"][index], "probability": float(probabilities[index])} for index in best
        ],
    }
