"""Makes a small real model version without the trainer: it tells red, green and blue pictures apart.

``python -m tests.models FOLDER [SIDE]`` publishes one below FOLDER, for images of SIDE x SIDE pixels.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from artifact import Input, Metadata, Metrics, draft, version_path
from artifact.layout import METADATA

LABELS = ("red", "green", "blue")
SIDE = 32  # pixels


def publish(models: Path, name: str = "colours", labels: tuple[str, ...] = LABELS, side: int = SIDE) -> Path:
    """Publish the next version of model ``name`` under ``models`` and return its folder. Imports TensorFlow.

    Its images have ``side`` x ``side`` pixels. The answer is softmax(8 * mean colour) over the channels, so that a pure
    colour has a probability above 0.99.
    """
    import tensorflow as tf

    with draft(models, name) as version:
        module = _module(tf, side)
        signatures = {"serving_default": module.serve_images, "serve_bytes": module.serve_bytes}
        tf.saved_model.save(module, str(version.path), signatures=signatures)
        (version.extra / "MODEL_CARD.md").write_text("# Colours\n\nTells red, green and blue apart.\n")
        return version.publish(metadata(name, labels, side))


def publish_in_a_process(models: Path, side: int = SIDE) -> Path:
    """Publish the colours under ``models`` from another process, which keeps TensorFlow out of this one."""
    subprocess.run([sys.executable, "-m", "tests.models", str(models), str(side)], check=True, capture_output=True)
    return models / "colours" / "1"


def metadata(name: str, labels: tuple[str, ...] = LABELS, side: int = SIDE) -> Metadata:
    """Return the metadata of such a version; ``publish`` fills in its number and its files."""
    return Metadata(
        name=name,
        version=0,
        labels=labels,
        input=Input(height=side, width=side),
        metrics=Metrics(measured_on="none", images=0, accuracy=0.0, expected_calibration_error=0.0),
        parameters=1,
        megaflops=0.01,
        created="2026-01-01T00:00:00+00:00",
        training={},
        dataset={},
        revision="unknown",
        libraries={},
        hardware="unknown",
        training_seconds=0.0,
    )


def _module(tf: Any, side: int) -> Any:
    class Colours(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.sharpness = tf.Variable(8.0)
            images = tf.TensorSpec([None, side, side, 3], tf.uint8, name="images")
            image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
            self.serve_images = tf.function(self.classify, input_signature=[images])
            self.serve_bytes = tf.function(self.classify_bytes, input_signature=[image_bytes])

        def classify(self, images: Any) -> dict[str, Any]:
            means = tf.reduce_mean(tf.cast(images, tf.float32) / 255.0, axis=[1, 2])  # [N, 3]
            return {"probabilities": tf.nn.softmax(self.sharpness * means)}

        def classify_bytes(self, image_bytes: Any) -> dict[str, Any]:
            def decode(content: Any) -> Any:
                image = tf.io.decode_image(content, channels=3, expand_animations=False)
                return tf.cast(tf.image.resize(image, [side, side]), tf.uint8)

            images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8)
            return self.classify(tf.ensure_shape(images, [None, side, side, 3]))

    return Colours()


def copy(source: Path, models: Path, version: int, labels: tuple[str, ...] = LABELS, name: str = "colours") -> Path:
    """Copy the version in folder ``source`` to ``version`` of model ``name``, with other labels, as one step.

    The labels tell which version answered; they are not under a checksum, as the rest of the metadata is not.
    """
    target = version_path(models, name, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft_path = target.with_name(f".draft-{version}")
    shutil.copytree(source, draft_path)
    record = json.loads((draft_path / METADATA).read_text(encoding="utf-8"))
    record.update(name=name, version=version, labels=list(labels))
    (draft_path / METADATA).write_text(json.dumps(record), encoding="utf-8")
    return draft_path.rename(target)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), side=int(sys.argv[2]) if len(sys.argv) > 2 else SIDE)
