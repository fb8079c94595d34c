"""Clients that we did not write, with several models: ``python -m tests.interop.many_models HOST:PORT TOKEN``.

The service has colours 1 and 2, and fruits 3, called stable, and 5, called canary, all loaded.
"""

import asyncio
import sys
from typing import NamedTuple

import httpx
import numpy as np
import ovmsclient
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tritonclient.utils import InferenceServerException

from tests.interop.checks import COLOURS, PROBABLE, check, raises, run, wait

VERSIONS = (("colours", "1"), ("colours", "2"), ("fruits", "3"), ("fruits", "5"))


class Service(NamedTuple):
    """Where the service is, and the headers that let one change it."""

    address: str
    headers: dict[str, str]


@check
def triton_asks_each_version(service: Service) -> None:
    """By its number and by its label; without one, the version that answers."""
    with triton.InferenceServerClient(service.address) as client:
        images = triton.InferInput("images", list(COLOURS.shape), "UINT8")
        images.set_data_from_numpy(COLOURS)
        for name, version in (*VERSIONS, ("fruits", "stable"), ("fruits", "canary"), ("fruits", "")):
            assert client.is_model_ready(name, version)
            result = client.infer(name, [images], version)
            np.testing.assert_allclose(result.as_numpy("probabilities"), PROBABLE, atol=1e-4)
            number = {"stable": "3", "canary": "5", "": "3"}.get(version, version)
            assert result.get_response()["model_version"] == number
        assert client.get_model_metadata("fruits")["versions"] == ["3", "5"]
        assert client.get_model_config("fruits")["version_policy"] == {"specific": {"versions": [3, 5]}}
        stats = client.get_inference_statistics()["model_stats"]
        assert [(each["name"], each["version"]) for each in stats] == list(VERSIONS)


@check
def triton_loads_and_unloads(service: Service) -> None:
    """By the repository's extension, which needs the token; what is unloaded is not ready, and its index says so."""
    with triton.InferenceServerClient(service.address) as client:
        with raises(InferenceServerException):
            client.unload_model("fruits")
        client.unload_model("fruits", headers=service.headers)
        wait(lambda: not client.is_model_ready("fruits"))
        index = {(each["name"], each["version"]): each["state"] for each in client.get_model_repository_index()}
        assert index[("fruits", "3")] == "UNAVAILABLE"
        assert index[("colours", "2")] == "READY"
        client.load_model("fruits", headers=service.headers)
        wait(lambda: client.is_model_ready("fruits") and client.is_model_ready("fruits", "canary"))


@check
def kserve_asks_each_model(service: Service) -> None:
    """In both protocols, by the model's name."""

    async def ask() -> None:
        for protocol in ("v1", "v2"):
            async with InferenceRESTClient(RESTConfig(protocol=protocol, retries=1)) as client:
                for name in ("colours", "fruits"):
                    await ask_one(client, f"http://{service.address}", protocol, name)

    async def ask_one(client: InferenceRESTClient, url: str, protocol: str, name: str) -> None:
        assert await client.is_model_ready(url, name)
        if protocol == "v1":
            answer = await client.infer(url, {"instances": COLOURS.tolist()}, model_name=name)
            np.testing.assert_allclose(answer["predictions"], PROBABLE, atol=1e-4)
            return
        tensor = InferInput("images", list(COLOURS.shape), "UINT8")
        tensor.set_data_from_numpy(COLOURS, binary_data=True)
        response = await client.infer(url, InferRequest(model_name=name, infer_inputs=[tensor]), model_name=name)
        assert response.model_name == name
        assert response.model_version in (None, {"colours": "2", "fruits": "3"}[name])  # of a binary answer it has none

    asyncio.run(ask())


@check
def openvino_asks_each_version(service: Service) -> None:
    """By its number, as TensorFlow Serving's paths have it, and tells the state of each."""
    client = ovmsclient.make_http_client(service.address)
    for name, version in VERSIONS:
        np.testing.assert_allclose(client.predict({"images": COLOURS}, name, int(version)), PROBABLE, atol=1e-4)
        assert client.get_model_status(name, int(version))[int(version)]["state"] == "AVAILABLE"
    with raises(ovmsclient.ModelNotFoundError):
        client.predict({"images": COLOURS}, "fruits", 4)


@check
def labels_are_in_tensorflow_servings_paths(service: Service) -> None:
    """A label that no version has is a 400, as it is there."""
    url = f"http://{service.address}/v1/models/fruits/labels"
    body = {"instances": COLOURS.tolist()}
    for label, status in (("stable", 200), ("canary", 200), ("next", 400)):
        assert httpx.post(f"{url}/{label}:predict", json=body).status_code == status


if __name__ == "__main__":
    run(Service(sys.argv[1], {"Authorization": f"Bearer {sys.argv[2]}"}))
