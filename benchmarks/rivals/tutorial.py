"""The server of the usual tutorial: Flask, a SavedModel loaded by TensorFlow, one gunicorn worker.

MODEL names the version's folder:

    MODEL=models/cifar10/5 gunicorn --bind 127.0.0.1:8001 benchmarks.rivals.tutorial:app
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from flask import Flask, Response, jsonify, request
from PIL import Image

MODEL = Path(os.environ["MODEL"])
RECORD = json.loads((MODEL / "assets.extra" / "metadata.json").read_text(encoding="utf-8"))
SIZE = (RECORD["input"]["width"], RECORD["input"]["height"])

app = Flask(__name__)
model: Any = tf.saved_model.load(str(MODEL))
signature = model.signatures["serving_default"]


@app.post("/predict")
def predict() -> Response:
    """Classify the picture in the field ``image``."""
    image = Image.open(io.BytesIO(request.files["image"].read())).convert("RGB").resize(SIZE)
    probabilities = signature(images=tf.constant(np.asarray(image)[np.newaxis]))["probabilities"].numpy()[0]
    best = np.argsort(-probabilities)[:5]
    return jsonify(
        success=True,
        predictions=[{"label": RECORD["labels"][index], "probability": float(probabilities[index])} for index in best],
    )
