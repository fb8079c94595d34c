"""Write a trained network as a SavedModel, and prove that it answers as the network does.

This is the one module of the trainer that needs TensorFlow, whichever backend trained.
"""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
import tensorflow as tf
from numpy.typing import NDArray

from artifact import Input
from training.dataset import Pixels
from training.errors import TrainingError
from training.evaluate import Predict

_TOLERANCE = 1e-3
_INTERPOLATION = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}


class _Servable(tf.Module):  # type: ignore[misc]
    """The network with pixels or encoded pictures as input and probabilities as output."""

    def __init__(self, model: keras.Model, picture: Input) -> None:
        super().__init__()
        # A function, since a model as an attribute would be saved along with its variables, and those twice.
        self._logits = functools.partial(model, training=False)
        self._input = picture
        self.weights = [variable.value for variable in model.weights]

    def classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pictures uint8 [N, H, W, 3] -> probabilities float32 [N, classes]."""
        logits = self._logits(tf.cast(images, tf.float32))
        return {"probabilities": tf.nn.softmax(logits)}

    def classify_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """JPEG or PNG files, string [N] -> the same."""
        shape = tf.TensorSpec([self._input.height, self._input.width, 3], tf.uint8)
        return self.classify(tf.map_fn(self._decode, image_bytes, fn_output_signature=shape))

    def _decode(self, content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        size = (self._input.height, self._input.width)
        if self._input.resize == "crop":
            image = _cut_to_aspect(image, *size)
        resized = tf.image.resize(image, size, _INTERPOLATION[self._input.interpolation], antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)


def _cut_to_aspect(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Cut the largest centred part with the aspect ratio of height and width out of ``image`` [H, W, 3]."""
    shape = tf.shape(image)
    rows = tf.minimum(shape[0], tf.cast(tf.round(shape[1] * height / width), tf.int32))
    columns = tf.minimum(shape[1], tf.cast(tf.round(shape[0] * width / height), tf.int32))
    rows, columns = tf.maximum(rows, 1), tf.maximum(columns, 1)
    return tf.image.crop_to_bounding_box(image, (shape[0] - rows) // 2, (shape[1] - columns) // 2, rows, columns)


def save(model: keras.Model, picture: Input, path: Path) -> None:
    """Write ``model`` (pixels 0..255 -> logits) to folder ``path`` as a SavedModel with both signatures.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    servable = _Servable(model, picture)
    images = tf.TensorSpec([None, picture.height, picture.width, 3], tf.uint8, name="images")
    content = tf.TensorSpec([None], tf.string, name="image_bytes")
    signatures = {
        "serving_default": tf.function(servable.classify, input_signature=[images]),
        "serve_bytes": tf.function(servable.classify_bytes, input_signature=[content]),
    }
    try:
        tf.saved_model.save(servable, str(path), signatures=signatures)
    except tf.errors.OpError as error:
        raise OSError(f"the SavedModel could not be written to {path}: {error.message}") from error


def read_weights(path: Path) -> list[NDArray[np.float32]]:
    """Return the weights in the SavedModel in folder ``path``, in the order of the network that was saved."""
    return [variable.numpy() for variable in tf.saved_model.load(str(path)).weights]


def tensorflow_predict(path: Path) -> Predict:
    """Return the classifier in the SavedModel in folder ``path``, run by TensorFlow."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def predict(images: Pixels) -> NDArray[np.float32]:
        _ = loaded  # the signature alone does not keep its variables alive
        return np.asarray(signature(images=tf.constant(images))["probabilities"])

    return predict


def openvino_predict(path: Path) -> Predict:
    """Return the classifier in the SavedModel in folder ``path``, run by OpenVINO in float32."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def predict(images: Pixels) -> NDArray[np.float32]:
        return np.asarray(compiled({"images": images})["probabilities"])

    return predict


def keras_predict(model: keras.Model) -> Predict:
    """Return ``model`` as a classifier that gives probabilities."""

    def predict(images: Pixels) -> NDArray[np.float32]:
        logits = model(images.astype(np.float32), training=False)
        return np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(logits)))

    return predict


def check(model: keras.Model, path: Path, images: Pixels) -> float:
    """Read the SavedModel back and compare its answers to ``images`` with the network's; return the largest gap.

    Both signatures are compared under TensorFlow and ``serving_default`` under OpenVINO.

    Raises:
        TrainingError: a probability differs by more than 1e-3.
    """
    expected = keras_predict(model)(images)
    answers: dict[str, Any] = {
        "TensorFlow": tensorflow_predict(path)(images),
        "TensorFlow, from PNG files,": _answer_to_files(path, images),
        "OpenVINO": openvino_predict(path)(images),
    }
    gaps = {reader: float(np.abs(answer - expected).max()) for reader, answer in answers.items()}
    reader, gap = max(gaps.items(), key=lambda item: item[1])
    if not gap <= _TOLERANCE:  # so that NaN fails
        raise TrainingError(f"the SavedModel read by {reader} differs from the network by {gap:.2g}; not published")
    return gap


def _answer_to_files(path: Path, images: Pixels) -> NDArray[np.float32]:
    signature = tf.saved_model.load(str(path)).signatures["serve_bytes"]
    files = tf.stack([tf.io.encode_png(image) for image in images])
    return np.asarray(signature(image_bytes=files)["probabilities"])
