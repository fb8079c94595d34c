"""KServe's own client by gRPC: ``python -m tests.interop.kserve_grpc HOST:PORT``; the service has the colours model."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

from tests.interop.checks import COLOURS, PROBABLE, check, raises, run


@check
def health(address: str) -> None:
    """Liveness, readiness and the model's readiness are read."""

    async def ask(client: InferenceGRPCClient) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("colours")
        assert not await client.is_model_ready("shapes")

    with_client(address, ask)


@check
def inference(address: str) -> None:
    """Tensors as raw bytes and as typed contents give the same probabilities."""

    async def ask(client: InferenceGRPCClient) -> None:
        for binary in (True, False):
            tensor = InferInput("images", list(COLOURS.shape), "UINT8")
            tensor.set_data_from_numpy(COLOURS, binary_data=binary)
            request = InferRequest(model_name="colours", infer_inputs=[tensor], request_id="a-name")
            response = await client.infer(request)
            assert (response.id, response.model_name) == ("a-name", "colours")
            np.testing.assert_allclose(response.outputs[0].as_numpy(), PROBABLE, atol=1e-4)

    with_client(address, ask)


@check
def faults_are_told(address: str) -> None:
    """An unknown model is NOT_FOUND, and its sentence names it."""

    async def ask(client: InferenceGRPCClient) -> None:
        tensor = InferInput("images", list(COLOURS.shape), "UINT8")
        tensor.set_data_from_numpy(COLOURS)
        with raises(grpc.aio.AioRpcError) as raised:
            await client.infer(InferRequest(model_name="shapes", infer_inputs=[tensor]))
        assert raised[0].code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        assert "shapes" in raised[0].details()  # type: ignore[attr-defined]

    with_client(address, ask)


@check
def metadata(address: str) -> None:
    """An id that is asked for comes back."""

    async def ask(client: InferenceGRPCClient) -> None:
        stub = client._client_stub
        from kserve.protocol.grpc.grpc_predict_v2_pb2 import ServerMetadataRequest

        call = stub.ServerMetadata(ServerMetadataRequest(), metadata=(("x-request-id", "a-name"),))
        assert (await call).name == "darkroom"
        assert dict(await call.initial_metadata())["x-request-id"] == "a-name"

    with_client(address, ask)


def with_client(address: str, ask: Any) -> None:
    """Call ``ask`` with a client, which it closes."""

    async def session() -> None:
        async with InferenceGRPCClient(address) as client:
            asked: Awaitable[None] = ask(client)
            await asked

    asyncio.run(session())


if __name__ == "__main__":
    run(sys.argv[1])
