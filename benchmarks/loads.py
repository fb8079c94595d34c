"""The loads that compare.py puts on its servers: what is posted, and what came of it, round by round."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import JPEG, Body, Load, ServerFailed, core_seconds, form, jpeg, load, photograph
from benchmarks.servers import BATCH, FORM, OURS, RAW, Running, rest, wake
from service.inference.engine import Images
from service.protocols.open_inference.messages import BINARY, JSON_LENGTH

BATCH_SIZE = 64
PHOTOGRAPHS = {"500x375": (375, 500), "1,920x1,080": (1080, 1920), "12 megapixels": (3024, 4032)}  # height, width
PHOTOGRAPH_BATCH = 16
CROWDS = (16, 1)  # connections

_BATCH_CONNECTIONS = 4
_WARM_UP_SECONDS = 1.0
_LONGER = 10  # times as long is asked where no answer came: a slow machine may not get through a batch before
_LONGEST = 100  # characters of what is told of a server that fails

Figures = dict[str, Any]


class Work(NamedTuple):
    """One kind of load, on all servers that take it."""

    name: str
    takes: str
    body: Body
    connections: int
    path: str = "/predict"
    only: str = ""  # the one server that takes it


def crowd(connections: int) -> str:
    """Return ``connections`` in words."""
    return "one connection" if connections == 1 else f"{connections} connections"


def single_works(images: Images) -> list[Work]:
    """Return the loads of one small picture a request, which is the first of ``images``, uint8 [N, H, W, 3]."""
    file = jpeg(images[0])
    bodies = {RAW: Body(file, JPEG), FORM: form("image", [file])}
    return [
        Work(f"one JPEG, {takes}, {crowd(connections)}", takes, bodies[takes], connections)
        for connections in CROWDS
        for takes in (RAW, FORM)
    ]


def batch_work(images: Images) -> Work:
    """Return the load of all ``images``, uint8 [N, H, W, 3], as JPEGs in each request."""
    files = [jpeg(image) for image in images]
    return Work(f"{len(files)} JPEGs a request", BATCH, form("images", files), _BATCH_CONNECTIONS, "/predict/batch")


def tensor_works(images: Images, model: str) -> list[Work]:
    """Return the loads of all ``images``, uint8 [N, H, W, 3], as tensors, which only our service takes."""
    count, raw, binary = len(images), Body(images.tobytes(), BINARY), _v2_binary(images)
    infer = f"/v2/models/{model}/infer"
    return [
        Work(f"{count} images a request, raw", RAW, raw, _BATCH_CONNECTIONS, "/predict/batch", OURS),
        Work(f"{count} images a request, V2 binary", RAW, binary, _BATCH_CONNECTIONS, infer, OURS),
    ]


def photograph_works() -> list[Work]:
    """Return the loads of photographs: one a request of each size, and several of the smallest."""
    works = []
    for name, size in PHOTOGRAPHS.items():
        body = form("image", [jpeg(photograph(*size))])
        works += [Work(f"{name}, {crowd(connections)}", FORM, body, connections) for connections in CROWDS]
    smallest, size = next(iter(PHOTOGRAPHS.items()))
    files = [jpeg(photograph(*size, seed)) for seed in range(PHOTOGRAPH_BATCH)]
    name = f"{smallest}, {PHOTOGRAPH_BATCH} a request"
    return [*works, Work(name, BATCH, form("images", files), _BATCH_CONNECTIONS, "/predict/batch")]


def _v2_binary(images: Images) -> Body:
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": images.nbytes}}]}).encode()
    return Body(text + images.tobytes(), BINARY, (f"{JSON_LENGTH}: {len(text)}",))


class Rounds:
    """What came of the loads so far, of each work and server a result for each round."""

    def __init__(self, folder: Path) -> None:
        """Take a folder for files."""
        self.failed: dict[str, str] = {}
        self._folder = folder
        self._found: dict[str, dict[str, list[Figures]]] = {}

    def run(self, works: Sequence[Work], servers: Sequence[Running], seconds: float, number: int) -> None:
        """Put each of ``works`` on each of ``servers`` in turn, the other way round where ``number`` is odd.

        A server that fails is named in ``failed``, and not asked again.
        """
        turns = [(work, server) for work in works for server in servers if _takes(server, work)]
        for work, server in turns if number % 2 == 0 else reversed(turns):
            if server.server.name in self.failed:
                continue
            try:
                found = self._ask(work, server, seconds)
            except ServerFailed as error:
                self.failed[server.server.name] = f"{work.name}: {error}"[:_LONGEST]
            else:
                self._found.setdefault(work.name, {}).setdefault(server.server.name, []).append(found)

    def _ask(self, work: Work, server: Running, seconds: float) -> Figures:
        address = f"http://127.0.0.1:{server.port}{work.path}"
        wake(server)
        load(address, work.body, work.connections, _WARM_UP_SECONDS, self._folder)
        for asked in (seconds, _LONGER * seconds):
            before = core_seconds(server.process.pid)
            found = load(address, work.body, work.connections, asked, self._folder)
            used = core_seconds(server.process.pid) - before
            if found.rate:
                break
        rest(server)
        if not found.rate:
            raise ServerFailed("it gave no good answer")
        print(f"{work.name}: {server.server.name}: {found.rate:.0f}/s", file=sys.stderr)
        return {**found._asdict(), "core_milliseconds": used * 1000 / (found.rate * max(1, round(asked)))}

    def figures(self) -> Figures:
        """Return for each work and server the medians over the rounds, and the rates of each round."""
        return {
            work: {server: _medians(rounds) for server, rounds in by_server.items()}
            for work, by_server in self._found.items()
        }


def _takes(server: Running, work: Work) -> bool:
    return work.takes in server.server.takes and work.only in ("", server.server.name)


def _medians(rounds: Iterable[Figures]) -> Figures:
    found = list(rounds)
    fields = (*Load._fields, "core_milliseconds")
    return {**{field: median(one[field] for one in found) for field in fields}, "rates": [one["rate"] for one in found]}


def compared(loads: Mapping[str, Figures], ours: str, theirs: str) -> float:
    """Return how many times the answers of ``theirs`` the server ``ours`` gave, the median of the rounds' ratios.

    The machine's speed moves between rounds, so that only what ran in the same round is compared.
    """
    pairs = zip(loads[ours]["rates"], loads[theirs]["rates"], strict=False)
    return float(np.median([mine / other for mine, other in pairs]))
