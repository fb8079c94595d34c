"""What a frozen backbone makes of pictures: each passes it once, and what came of it is kept in the run folder."""

import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Pixels
from training.errors import TrainingError
from training.evaluation.inference import openvino_answer
from training.network.backbone import embedding_of
from training.progress import bar

Vectors = NDArray[np.float32]
"""A row for each picture, float32 [N, D]."""
Embed = Callable[[Pixels], Vectors]
"""Pictures uint8 [B, H, W, 3] -> their features float32 [B, D]."""

_BATCH = 32  # whose features are written down together
_DIGEST = 16  # bytes


def embedder(model: keras.Model) -> Embed:
    """Return what gives the features of pictures that the head of ``model``, a network on a backbone, gets.

    They are computed by OpenVINO where Keras runs on TensorFlow, which it reads; else by Keras itself.
    """
    network = keras.Model(model.input, embedding_of(model))
    if keras.backend.backend() != "tensorflow":
        return lambda images: keras.ops.convert_to_numpy(network(images.astype(np.float32), training=False))
    import tensorflow as tf

    signature = [tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")]
    function = tf.function(lambda images: {"features": network(tf.cast(images, tf.float32), training=False)}, signature)
    module = tf.Module()
    module.weights = [variable.value for variable in network.weights]
    with tempfile.TemporaryDirectory() as folder:  # OpenVINO's own conversion in memory fails on Python 3.13
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        answer = openvino_answer(Path(folder))
    return lambda images: answer(images)["features"]


class Features:
    """The features of pictures by one backbone, in a file that holds those of all pictures that it was asked for."""

    def __init__(self, file: Path, make: Callable[[], Embed]) -> None:
        """Take what ``file`` holds; ``make`` returns the backbone, which is made once, for pictures that it lacks."""
        self._file = file
        self._make = functools.cache(make)
        self._known = _read(file)

    def of(self, images: Pixels, *, quiet: bool = False) -> Vectors:
        """Return the features float32 [N, D] of ``images`` uint8 [N, H, W, 3].

        Whatever ends it early, those that are known by then are kept. Where it is ``quiet``, another bar shows it.

        Raises:
            TrainingError: the file cannot be written.
        """
        digests = [hashlib.blake2b(image, digest_size=_DIGEST).digest() for image in images]
        missing = [index for index, digest in enumerate(digests) if digest not in self._known]
        if missing:
            try:
                for index, vector in self._embedded(images, missing, quiet=quiet):
                    self._known[digests[index]] = vector
            finally:
                _write(self._file, self._known)
        return np.stack([self._known[digest] for digest in digests])

    def _embedded(self, images: Pixels, missing: Sequence[int], *, quiet: bool) -> Iterator[tuple[int, Vectors]]:
        embed = self._make()
        with nullcontext() if quiet else bar(len(missing), "Features", "picture") as shown:
            for chosen in np.split(np.array(missing), range(_BATCH, len(missing), _BATCH)):
                yield from zip(chosen.tolist(), embed(images[chosen]), strict=True)
                if shown:
                    shown.update(len(chosen))


def _read(file: Path) -> dict[bytes, Vectors]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            digests, features = held["digests"], held["features"]
    except Exception:  # noqa: BLE001 - what is missing or damaged, in whichever way, is computed again
        return {}
    whole = digests.dtype == np.uint8 and features.dtype == np.float32 and features.ndim == 2
    if not whole or digests.shape != (len(features), _DIGEST) or not np.isfinite(features).all():
        return {}
    return dict(zip(map(bytes, digests), features, strict=True))


def _write(file: Path, known: dict[bytes, Vectors]) -> None:
    if not known:
        return
    draft = file.with_suffix(".draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as opened:
            digests = np.frombuffer(b"".join(known), np.uint8).reshape(-1, _DIGEST)
            np.savez(opened, digests=digests, features=np.stack(list(known.values())))
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise TrainingError(f"{file} cannot be written ({error.strerror or error}); make room for it") from error
