"""Write a trained network as a SavedModel, and prove that it answers as the network does.

This is the one module of the trainer that needs TensorFlow, whichever backend trained.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from artifact import Input
from training.data.batching import in_batches
from training.data.dataset import Pixels
from training.errors import TrainingError
from training.evaluation.calibration import KEPT, LEAST_SURPLUS, Correction
from training.evaluation.embedding_score import EmbeddingScore
from training.evaluation.familiarity import score_of
from training.evaluation.inference import Answer, Outputs, largest_gap, openvino_answer
from training.evaluation.sigmoids import Sigmoids
from training.network.backbone import embedding_of

_TOLERANCE = 1e-3
_BATCH = 500
_LARGEST_LOGIT = 80.0
_UNCHANGED = Correction()
_INTERPOLATION = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}


class _Servable(tf.Module):  # type: ignore[misc]
    """The network with pixels or encoded pictures as input, and as output probabilities and how familiar they look.

    A network on a backbone also gives the embedding that its head works on.
    """

    def __init__(
        self, model: keras.Model, picture: Input, correction: Correction | Sigmoids, score: EmbeddingScore | None
    ) -> None:
        super().__init__()
        # A function, since a model as an attribute would be saved along with its variables, and those twice.
        self._network = functools.partial(_with_embedding(model), training=False)
        self._input = picture
        self._correction = correction  # constants of the graph: no weights, so that others can start from the weights
        self._score = score
        self.weights = [variable.value for variable in model.weights]

    def classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pictures uint8 [N, H, W, 3] -> probabilities float32 [N, classes] and familiarity float32 [N].

        On a backbone there is the embedding float32 [N, D] as well.
        """
        outputs = self._network(tf.cast(images, tf.float32))
        logits = outputs.pop("logits")
        probabilities = _probabilities(logits, self._correction)
        familiarity = _energy(logits, self._correction)
        if self._score:
            familiarity = _by_embedding(self._score, familiarity, outputs["embedding"])
        return {"probabilities": probabilities, "familiarity": familiarity, **outputs}

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


def _with_embedding(model: keras.Model) -> keras.Model:
    """Return the network with outputs by name: ``logits`` and, on a backbone, the ``embedding`` that they come from."""
    embedding = embedding_of(model)
    outputs = {"logits": model.output} if embedding is None else {"logits": model.output, "embedding": embedding}
    return keras.Model(model.input, outputs)


def _probabilities(logits: tf.Tensor, correction: Correction | Sigmoids) -> tf.Tensor:
    """Return what ``correction`` makes of the logits [N, classes]."""
    if isinstance(correction, Sigmoids):
        if correction.slopes is not None and correction.biases is not None:
            logits = logits * tf.constant(correction.slopes) + tf.constant(correction.biases)
        return tf.sigmoid(logits)
    if correction.label_smoothing:
        share = correction.label_smoothing / logits.shape[1]
        probabilities = tf.nn.softmax(logits)
        surplus = probabilities + -share  # an addition, since quantisation leaves those in float
        logits = tf.math.log(tf.maximum(tf.maximum(surplus, KEPT * probabilities), LEAST_SURPLUS))
    return tf.nn.softmax(logits / correction.temperature)


def _energy(logits: tf.Tensor, correction: Correction | Sigmoids) -> tf.Tensor:
    """Return ``training.evaluation.familiarity.score_of`` the logits [N, classes].

    Kept within a range that float32 has exponentials of, and not shifted by the largest as usual: with that OpenVINO
    takes 2% longer for one picture, and with this no longer than without.
    """
    if isinstance(correction, Sigmoids):
        return tf.reduce_sum(tf.math.softplus(logits), axis=1)
    within = tf.clip_by_value(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)
    return tf.math.log(tf.reduce_sum(tf.exp(within), axis=1))


def _by_embedding(score: EmbeddingScore, energy: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
    """Return ``score`` of pictures with this ``energy`` [N] and ``embedding`` [N, D]."""
    known, (of_energy, of_distance, of_residual) = score.distances, score.weights.tolist()
    centred = embedding - known.mean
    main = tf.matmul(centred, known.directions)  # [N, R]
    inside, overall = tf.matmul(main, known.within), tf.matmul(main, known.overall)
    nearest = tf.reduce_max(tf.matmul(inside, 2 * known.classes.T) - (known.classes**2).sum(axis=1), axis=1)
    relative = tf.reduce_sum(overall * overall, axis=1) - tf.reduce_sum(inside * inside, axis=1) + nearest
    outside = tf.reduce_sum(centred * centred, axis=1) - tf.reduce_sum(main * main, axis=1)
    residual = tf.sqrt(tf.maximum(outside, 0.0))
    return of_energy * energy + of_distance * relative - of_residual * residual - score.offset


def _cut_to_aspect(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Cut the largest centred part with the aspect ratio of height and width out of ``image`` [H, W, 3]."""
    shape = tf.shape(image)
    rows = tf.minimum(shape[0], tf.cast(tf.round(shape[1] * height / width), tf.int32))
    columns = tf.minimum(shape[1], tf.cast(tf.round(shape[0] * width / height), tf.int32))
    rows, columns = tf.maximum(rows, 1), tf.maximum(columns, 1)
    return tf.image.crop_to_bounding_box(image, (shape[0] - rows) // 2, (shape[1] - columns) // 2, rows, columns)


def save(
    model: keras.Model,
    picture: Input,
    path: Path,
    correction: Correction | Sigmoids = _UNCHANGED,
    score: EmbeddingScore | None = None,
) -> None:
    """Write ``model`` (pixels 0..255 -> logits) to folder ``path`` as a SavedModel with both signatures.

    In its graph the logits become probabilities by ``correction``; see ``training.evaluation.calibration``. The
    familiarity is ``score``, for a network that has an embedding, or without it the energy.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    servable = _Servable(model, picture, correction, score)
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


def check(
    model: keras.Model,
    path: Path,
    images: Pixels,
    correction: Correction | Sigmoids = _UNCHANGED,
    score: EmbeddingScore | None = None,
) -> float:
    """Read the SavedModel back and compare its answers to ``images`` with the network's; return the largest gap.

    Both signatures are compared under TensorFlow and ``serving_default`` under OpenVINO, in all outputs; the gap of
    each is taken as a share of its largest number where that is above 1, since only probabilities have an upper limit.

    Raises:
        TrainingError: they differ by more than 1e-3.
    """
    expected = _expected(model, images, correction, score)
    loaded = tf.saved_model.load(str(path))  # to be kept, since the signatures alone would not keep the weights
    readers = {
        "TensorFlow": _answer(loaded.signatures["serving_default"], _as_pixels),
        "TensorFlow, from PNG files,": _answer(loaded.signatures["serve_bytes"], _as_files),
        "OpenVINO": openvino_answer(path),
    }
    gaps = {reader: largest_gap(answer(images), expected) for reader, answer in readers.items()}
    reader, gap = max(gaps.items(), key=lambda item: item[1])
    if not gap <= _TOLERANCE:  # so that NaN fails
        raise TrainingError(f"the SavedModel read by {reader} differs from the network by {gap:.2g}; not published")
    return gap


def _expected(
    model: keras.Model, images: Pixels, correction: Correction | Sigmoids, score: EmbeddingScore | None
) -> Outputs:
    """Return what the SavedModel of ``model`` is to answer to ``images``, a batch at a time."""
    network = _with_embedding(model)
    parts = [network(batch.astype(np.float32), training=False) for batch in in_batches(images, _BATCH)]
    outputs = {name: np.concatenate([keras.ops.convert_to_numpy(part[name]) for part in parts]) for name in parts[0]}
    logits = outputs.pop("logits")
    energy = score_of(logits, multi_label=isinstance(correction, Sigmoids))
    familiarity = score(outputs["embedding"], logits) if score else energy
    return {"probabilities": correction.probabilities(logits), "familiarity": familiarity, **outputs}


def _answer(signature: Callable[..., dict[str, tf.Tensor]], inputs: Callable[[Pixels], dict[str, tf.Tensor]]) -> Answer:
    def answer(images: Pixels) -> Outputs:
        outputs = signature(**inputs(images))
        return {name: output.numpy() for name, output in outputs.items()}

    return answer


def _as_pixels(images: Pixels) -> dict[str, tf.Tensor]:
    return {"images": tf.constant(images)}


def _as_files(images: Pixels) -> dict[str, tf.Tensor]:
    return {"image_bytes": tf.stack([tf.io.encode_png(image) for image in images])}
