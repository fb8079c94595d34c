"""Publish a pretrained network as it is, with ImageNet's labels: a service for photographs without a training."""

from pathlib import Path

import numpy as np

import artifact
from artifact import Draft, Input, Int8, Metadata, Metrics
from artifact.layout import INT8_MODEL, MODEL_CARD
from artifact.store import Store
from training.data.dataset import Classes, Pixels
from training.errors import AccuracyLost, Interruption
from training.evaluation.inference import openvino_predict
from training.evaluation.out_of_distribution import draw
from training.network import imagenet
from training.network.backbone import build_for_imagenet
from training.network.model import megaflops
from training.network.registry import BACKBONES, IMAGENET_WEIGHTS
from training.publish import provenance
from training.publish.export import check, save
from training.publish.model_card import int8_accuracy, model_card
from training.publish.quantization import quantize

# EfficientNet-Lite has 0.89 to 0.93 on flowers and 0.8 on cuttings that show nothing in particular: where float32 is
# unsure, int8 may well say something else. This is for a network that quantisation has broken.
_LEAST_AGREEMENT = 0.5
_CHECKED = ("noise", "blobs", "stripes", "fractals", "text")
_CHECKED_OF_A_KIND = 2


def publish_pretrained(
    backbone: str,
    models: Path,
    name: str,
    photographs: Pixels | None,
    interruption: Interruption,
    store: Store | None = None,
) -> Path:
    """Publish network ``backbone`` as the next version of model ``name`` under ``models``; return its folder.

    With a ``store`` it goes there, and ``models`` has a copy.

    With ``photographs`` uint8 [N, H, W, 3], as large as the network takes them, it is quantised to int8 as well.

    Nobody has said what is on those, so that its own answers in float32 count as right.

    Raises:
        AccuracyLost: int8 gives another answer to more than half of them; nothing is published.
        TrainingError: the weights cannot be had, or what was written differs from the network.
        OSError: the folder cannot be written.
    """
    model, known = build_for_imagenet(backbone), BACKBONES[backbone]
    picture = Input(known.side, known.side)
    with artifact.draft(models, name, store) as draft:
        save(model, picture, draft.path)
        gap = check(model, draft.path, _drawings(picture))
        print(f"The SavedModel answers as the network does, within {gap:.1e}, under TensorFlow and OpenVINO.")
        int8 = None if photographs is None else _int8(draft, photographs)
        metadata = Metadata(
            name=name,
            version=draft.next_version(),
            labels=imagenet.labels(),
            input=picture,
            metrics=Metrics("ImageNet validation, as published", imagenet.VALIDATION_IMAGES, known.imagenet),
            parameters=model.count_params(),
            megaflops=round(megaflops(model), 1),
            created=provenance.now(),
            training={
                "backbone": backbone,
                "backbone_weights": IMAGENET_WEIGHTS,
                "licence": known.licence,
                "labels_from": imagenet.LABELS_FROM,
            },
            dataset={"name": "ImageNet"},
            revision=provenance.revision(),
            libraries=provenance.libraries(),
            hardware="unknown",
            training_seconds=0.0,
            int8=int8,
        )
        (draft.extra / Path(MODEL_CARD).name).write_text(model_card(metadata, []), encoding="utf-8")
        interruption.check()
        return draft.publish(metadata)


def _drawings(picture: Input) -> Pixels:
    size = np.zeros((1, picture.height, picture.width, 3), np.uint8)
    return np.concatenate([draw(kind, size, _CHECKED_OF_A_KIND) for kind in _CHECKED])


def _int8(draft: Draft, photographs: Pixels) -> Int8:
    """Add an int8 network, with ranges from every other photograph, and return how often it agrees on the rest."""
    network = draft.path / INT8_MODEL
    network.parent.mkdir(parents=True)
    ranges, others = photographs[::2], photographs[1::2]
    quantize(draft.path, ranges, network)
    float32, quantized = (_answers(path, others) for path in (draft.path, network))
    agreement = float((float32 == quantized).mean())
    int8 = Int8("photographs, where the answers of float32 count as right", len(others), agreement, 1.0, len(ranges))
    if agreement < _LEAST_AGREEMENT:
        raise AccuracyLost(f"int8 agrees with float32 too seldom: {int8_accuracy(int8)}; import it without --int8")
    print(f"accuracy in int8 {int8_accuracy(int8)}")
    return int8


def _answers(network: Path, images: Pixels) -> Classes:
    classes: Classes = openvino_predict(network)(images).argmax(axis=1)
    return classes
