"""From the trainer to a client: the embedding that the service answers is that of the network in Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from service.app import create_app, make_services
from service.observe.metrics import Metrics
from service.settings import Settings
from tests.training.backbones import blots, pooled, published_network, share_nearest_to_their_own

pytestmark = [pytest.mark.keras, pytest.mark.slow]


def infer(client: FlaskClient, images: Any, outputs: list[str]) -> dict[str, Any]:
    """Return the outputs that the answer has for ``images``, by name, float32 [N, columns] each."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    request = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}
    answer = client.post("/v2/models/blots/infer", json=request).json
    assert answer is not None
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in answer["outputs"]}


@pytest.mark.parametrize(
    ("engine", "precision", "cosine"),
    [
        ("openvino", "float32", 0.99999),
        ("tensorflow", "float32", 0.99999),
        ("openvino", "bfloat16", 0.99),
        ("openvino", "int8", 0.4),  # of random weights, without VNNI; trained ones keep above 0.93
    ],
)
def test_the_service_answers_with_the_network_s_embedding(
    on_backbone: Path, engine: str, precision: str, cosine: float
) -> None:
    """In every precision it is the output of ``pool``, as near as that precision is, and only where it is named."""
    settings = Settings(model_dir=on_backbone.parent.parent, engine=engine, precision=precision)
    services = make_services(settings, Metrics(CollectorRegistry()), draining=lambda: False)
    services.models.refresh()
    client, images = create_app(services).test_client(), blots(10)
    try:
        answer = infer(client, images, ["embedding", "probabilities"])
        without = infer(client, images, [])
    finally:
        services.models.close()
    expected = pooled(published_network(on_backbone), images)  # [10, 576]
    assert list(without) == ["probabilities", "familiarity"]
    np.testing.assert_array_equal(without["probabilities"], answer["probabilities"])
    assert answer["embedding"].shape == expected.shape
    if precision == "float32":
        np.testing.assert_allclose(answer["embedding"], expected, atol=1e-4)
    lengths = np.linalg.norm(answer["embedding"], axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (answer["embedding"] * expected).sum(axis=1) / lengths
    assert cosines.min() > cosine
    assert share_nearest_to_their_own(answer["embedding"], expected) > 0.8, "it is that of other pictures"
