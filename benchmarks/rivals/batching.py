"""Starlette on uvicorn around the service's engine: what waits while a batch runs is the next batch.

What an engineer who knows asyncio writes in an hour; MODEL names the version's folder:

    MODEL=models/cifar10/5 uvicorn --factory --no-access-log benchmarks.rivals.batching:create_app

uvicorn takes uvloop and httptools where they are installed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.rivals.network import Network
from imaging import Pixels
from machine import usable_cores

_MOST = 32  # pictures of a batch
_LARGE = 16 * 1024  # bytes of a file that is decoded in a thread

Answer = dict[str, Any]
Waiting = tuple[Pixels, "asyncio.Future[Answer]"]


class Batcher:
    """A thread that runs the network for the requests that wait on the event loop."""

    def __init__(self, network: Network, loop: asyncio.AbstractEventLoop) -> None:
        self._network, self._loop = network, loop
        self._queue: SimpleQueue[Waiting] = SimpleQueue()
        Thread(target=self._run, daemon=True).start()

    async def predict(self, pixels: Pixels) -> Answer:
        """Return the answer to ``pixels``, uint8 [H, W, 3]."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._queue.put((pixels, future))
        return await future

    def _run(self) -> None:
        while True:
            images, futures = zip(*self._next(), strict=True)
            try:
                answers = self._network.predict(np.stack(images))
            except Exception as error:  # noqa: BLE001 - those who wait are told whatever it is
                self._loop.call_soon_threadsafe(_fail, futures, error)
            else:
                self._loop.call_soon_threadsafe(_tell, futures, answers)

    def _next(self) -> list[Waiting]:
        batch = [self._queue.get()]
        try:
            while len(batch) < _MOST:
                batch.append(self._queue.get_nowait())
        except Empty:
            pass
        return batch


def _tell(futures: Sequence["asyncio.Future[Answer]"], answers: Sequence[Answer]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.cancelled():
            future.set_result(answer)


def _fail(futures: Sequence["asyncio.Future[Answer]"], error: Exception) -> None:
    for future in futures:
        if not future.cancelled():
            future.set_exception(error)


def create_app() -> Starlette:
    """Return the application; it loads the network when it starts."""
    MultiPartParser.spool_max_size = 64 * 1024 * 1024  # photographs stay in memory
    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/predict/batch", predict_batch, methods=["POST"]),
        ],
        lifespan=_lifespan,
    )


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    network = Network()
    app.state.network = network
    app.state.batcher = Batcher(network, asyncio.get_running_loop())
    with ThreadPoolExecutor(usable_cores()) as threads:
        app.state.threads = threads
        yield


async def predict(request: Request) -> Response:
    """Classify the picture that is the body, or the field ``image`` of a form."""
    if request.headers["content-type"].startswith("multipart/"):
        async with request.form() as form:
            file = await _content(form["image"])
    else:
        file = await request.body()
    return _json(await _answer(request, file))


async def predict_batch(request: Request) -> Response:
    """Classify the pictures in the fields ``images`` of a form."""
    async with request.form() as form:
        files = [await _content(field) for field in form.getlist("images")]
    return _json({"success": True, "results": await asyncio.gather(*(_answer(request, file) for file in files))})


async def _content(field: UploadFile | str) -> bytes:
    assert isinstance(field, UploadFile)  # noqa: S101 - a form of another kind is answered with 500
    return await field.read()


async def _answer(request: Request, file: bytes) -> Answer:
    state = request.app.state
    if len(file) <= _LARGE:
        pixels = state.network.decode(file)
    else:
        pixels = await asyncio.get_running_loop().run_in_executor(state.threads, state.network.decode, file)
    answer: Answer = await state.batcher.predict(pixels)
    return answer


def _json(document: Answer) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
