"""KServe's own client: ``python tests/interop/kserve_client.py HOST:PORT`` against a service with the colours model."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

from tests.interop.checks import COLOURS, PROBABLE, check, raises, run


@check
def health(url: str) -> None:
    """Liveness, readiness and the model's readiness are read in both protocols."""

    async def ask(client: InferenceRESTClient) -> None:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "colours")

    with_client("v2", ask)

    async def ask_v1(client: InferenceRESTClient) -> None:
        assert await client.is_model_ready(url, "colours")

    with_client("v1", ask_v1)


@check
def inference_v1(url: str) -> None:
    """The V1 protocol, which is TensorFlow Serving's, gives predictions."""

    async def ask(client: InferenceRESTClient) -> None:
        answer = await client.infer(url, {"instances": COLOURS.tolist()}, model_name="colours")
        np.testing.assert_allclose(answer["predictions"], PROBABLE, atol=1e-4)

    with_client("v1", ask)


@check
def explanation_v1(url: str) -> None:
    """The V1 protocol says of each picture what spoke for its first label, and where."""
    images = np.zeros((2, *COLOURS.shape[1:]), np.uint8)
    images[0, 3:5, 8:20] = (0, 0, 255)
    images[1, :10] = (0, 255, 0)

    async def ask(client: InferenceRESTClient) -> None:
        answer = await client.explain(url, "colours", {"instances": images.tolist()})
        assert np.argmax(answer["predictions"], axis=1).tolist() == [2, 1]
        blue, green = answer["explanations"]
        assert (blue["label"], green["label"]) == ("blue", "green")
        assert blue["box"] == {"left": 8, "top": 3, "right": 20, "bottom": 5}
        np.testing.assert_array_equal(np.array(green["map"]) > 0, images[1, :, :, 1] > 0)

    with_client("v1", ask)


@check
def inference_v2(url: str) -> None:
    """The V2 protocol gives the same, with tensors in JSON and in binary."""

    async def ask(client: InferenceRESTClient) -> None:
        for binary in (False, True):
            tensor = InferInput("images", list(COLOURS.shape), "UINT8")
            tensor.set_data_from_numpy(COLOURS, binary_data=binary)
            request = InferRequest(
                model_name="colours",
                infer_inputs=[tensor],
                request_id="a-name",
                parameters={"binary_data_output": binary},
            )
            response = await client.infer(url, request, model_name="colours")
            assert response.id == "a-name"
            assert response.model_name == "colours"
            np.testing.assert_allclose(response.outputs[0].as_numpy(), PROBABLE, atol=1e-4)

    with_client("v2", ask)


@check
def faults_are_told(url: str) -> None:
    """An unknown model is a 404 that names it."""

    async def ask(client: InferenceRESTClient) -> None:
        tensor = InferInput("images", list(COLOURS.shape), "UINT8")
        tensor.set_data_from_numpy(COLOURS, binary_data=False)
        with raises(httpx.HTTPStatusError) as raised:
            await client.infer(url, InferRequest(model_name="shapes", infer_inputs=[tensor]), model_name="shapes")
        response = raised[0].response  # type: ignore[attr-defined]
        assert response.status_code == 404
        assert "shapes" in response.json()["error"]

    with_client("v2", ask)


def with_client(protocol: str, ask: Any) -> None:
    """Call ``ask`` with a client of ``protocol``, which it closes."""

    async def session() -> None:
        async with InferenceRESTClient(RESTConfig(protocol=protocol, retries=1)) as client:
            asked: Awaitable[None] = ask(client)
            await asked

    asyncio.run(session())


if __name__ == "__main__":
    run(f"http://{sys.argv[1]}")
