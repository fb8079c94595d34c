"""Compare predictions a second by gRPC and by HTTP, both with V2's binary tensors, on one server and one machine.

    python benchmarks/grpc_rate.py

Each client is a process in Python that asks for one picture after the other on one connection, so that the machine's
cores are also the clients'; what the server takes of them for an answer is printed beside the rate.
"""

import argparse
import http.client
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from artifact import read_metadata  # noqa: E402
from benchmarks.measuring import JPEG, Body, core_seconds, drawings, first_answer, free_port, jpeg, running  # noqa: E402

_MODEL = "cifar10"
_WAYS = ("http", "grpc")


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="whose medians are told (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16], help="at a time (default: 1 and 16)")
    options = parser.parse_args()
    ports = {way: free_port() for way in _WAYS}
    environment = {
        "MODEL_DIR": "models",
        "PORT": str(ports["http"]),
        "GRPC_PORT": str(ports["grpc"]),
        "LOG_LEVEL": "warning",
    }
    size = read_metadata(ROOT / "models" / _MODEL / "5").input
    picture = drawings(size.height, size.width)[0]
    with running([sys.executable, "-m", "service"], environment) as server:
        first_answer(ports["http"], Body(jpeg(picture), JPEG), server)
        for clients in options.clients:
            rates: dict[str, list[float]] = {way: [] for way in _WAYS}
            cores: dict[str, list[float]] = {way: [] for way in _WAYS}
            for _ in range(options.rounds):
                for way in _WAYS:
                    before = core_seconds(server.pid)
                    answers = _load(way, ports[way], picture, clients, options.seconds)
                    rates[way].append(answers / options.seconds)
                    cores[way].append((core_seconds(server.pid) - before) / answers)
            for way in _WAYS:
                milliseconds = median(cores[way]) * 1000
                print(
                    f"{clients:2} clients  {way}  {median(rates[way]):6,.0f} answers/s  {milliseconds:.2f} ms of a core"
                )
            print(f"{clients:2} clients  gRPC has {median(rates['grpc']) / median(rates['http']):.2f} of HTTP's rate")
    return 0


def _load(way: str, port: int, picture: Any, clients: int, seconds: float) -> int:
    """Return how many answers ``clients`` got together."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(clients), context.Value("q", 0)
    processes = [
        context.Process(target=_client, args=(way, port, picture, seconds, start, answers)) for _ in range(clients)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return int(answers.value)


def _client(way: str, port: int, picture: Any, seconds: float, start: Barrier, answers: Any) -> None:
    ask = (_by_grpc if way == "grpc" else _by_http)(port, picture)
    for _ in range(20):
        ask()
    start.wait()
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        ask()
        count += 1
    with answers.get_lock():
        answers.value += count


def _by_http(port: int, picture: Any) -> Callable[[], object]:
    """Return what asks once for ``picture``, uint8 [H, W, 3], tensors in binary both ways."""
    from service.protocols.open_inference.messages import JSON_LENGTH

    shape = list(picture[np.newaxis].shape)
    tensor = (
        f'{{"name":"images","datatype":"UINT8","shape":{shape},"parameters":{{"binary_data_size":{picture.size}}}}}'
    )
    text = f'{{"inputs":[{tensor}],"parameters":{{"binary_data_output":true}}}}'.encode()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))}
    body = text + picture.tobytes()

    def ask() -> bytes:
        connection.request("POST", f"/v2/models/{_MODEL}/infer", body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ConnectionError(content)
        return content

    return ask


def _by_grpc(port: int, picture: Any) -> Callable[[], object]:
    """The same by gRPC, without the time that a client takes to make its message."""
    import grpc

    from service.protocols.grpc import open_inference_pb2 as messages

    tensor = {"name": "images", "datatype": "UINT8", "shape": picture[np.newaxis].shape}
    request = messages.ModelInferRequest(
        model_name=_MODEL, inputs=[tensor], raw_input_contents=[picture.tobytes()]
    ).SerializeToString()
    method: Any = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return lambda: method(request, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
