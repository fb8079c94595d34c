"""gRPC: what is refused and how, who may ask, ids, metrics and bounds; by real calls to a server in this process."""

import contextlib
import hashlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from service.__main__ import main
from service.inference.errors import InvalidRequest, TooManyItems
from service.protocols.grpc import open_inference_pb2, tensorflow_serving_pb2
from service.protocols.grpc.wire import parse
from service.serving.grpc_port import GrpcPort, Most
from service.settings import Settings, SettingsError, Token
from service.web.services import Services
from tests.service.calling import HEALTH, MODEL, PREDICTION, V2, Caller, infer, predict
from tests.service.conftest import MakeServices
from tests.service.pictures import plain
from tests.service.running import free_port

RED = plain("red")
PIXELS = 32 * 32 * 3
MEGABYTE = 1_000_000
FLOAT, UINT8, STRING = (tensorflow_serving_pb2.DataType.Value(f"DT_{name}") for name in ("FLOAT", "UINT8", "STRING"))

MOST = Most(room=64 * MEGABYTE, unsent=MEGABYTE, connections=64)

Open = Callable[..., Caller]


@pytest.fixture
def services() -> list[Services]:
    """What the servers of the test work with, in the order of their beginning."""
    return []


@pytest.fixture
def connect(services_of: MakeServices, models: Path, tmp_path: Path, services: list[Services]) -> Iterator[Open]:
    """Opens a port with the settings that are asked for, and gives a connection to it."""
    with ExitStack() as stack:

        def begin(*, draining: bool = False, most: Most = MOST, models: Path = models, **values: object) -> Caller:
            port = free_port()
            made = services_of(draining=draining, model_dir=models, precision="float32", **values)
            services.append(made)
            opened = GrpcPort(made, lambda work: work(), port, most, tmp_path)
            stack.callback(leave, opened)
            caller = Caller(f"127.0.0.1:{port}")
            stack.callback(caller.close)
            return caller

        yield begin


def leave(port: GrpcPort) -> None:
    """Close ``port`` and wait for it."""
    ended = port.leave(lambda: True)
    deadline = time.monotonic() + 20
    while not ended():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def counted(services: Services, path: str, code: str) -> float:
    """Return how many calls of ``path`` ended with ``code``."""
    counter: Any = services.metrics.requests.labels(path, "GRPC", code)
    return float(counter._value.get())


BROKEN = {
    "another size": infer(bytes(12), [1, 2, 2, 3]),
    "too few bytes": infer(bytes(PIXELS - 1), [1, 32, 32, 3]),
    "too many bytes": infer(bytes(PIXELS + 1), [1, 32, 32, 3]),
    "more images than bytes": infer(bytes(PIXELS), [2, 32, 32, 3]),
    "no image": infer(b"", [0, 32, 32, 3]),
    "negative": infer(bytes(PIXELS), [-1, 32, 32, 3]),
    "negative twice": infer(bytes(PIXELS), [1, -32, -32, 3]),
    "huge": infer(bytes(PIXELS), [2**62, 32, 32, 3]),
    "no shape": infer(bytes(PIXELS), []),
    "many dimensions": infer(bytes(PIXELS), [1] * 1000),
    "another type": infer(bytes(PIXELS * 4), [1, 32, 32, 3], datatype="FP32"),
    "type of no protocol": infer(bytes(PIXELS), [1, 32, 32, 3], datatype="\x00"),
    "another name": infer(bytes(PIXELS), [1, 32, 32, 3], name="pixels"),
    "no data": open_inference_pb2.ModelInferRequest(
        model_name="colours", inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}]
    ),
    "no input": open_inference_pb2.ModelInferRequest(model_name="colours"),
    "two inputs": open_inference_pb2.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}] * 2,
        raw_input_contents=[bytes(PIXELS)] * 2,
    ),
    "above 255": open_inference_pb2.ModelInferRequest(
        model_name="colours",
        inputs=[
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": [1, 32, 32, 3],
                "contents": {"uint_contents": [256] * PIXELS},
            }
        ],
    ),
    "data twice": open_inference_pb2.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "contents": {"uint_contents": [1]}}],
        raw_input_contents=[bytes(PIXELS)],
    ),
    "an element cut short": infer(b"\xff\xff\xff\xff123", [1], "image_bytes", "BYTES"),
    "no picture": infer(b"\x03\x00\x00\x00123", [1], "image_bytes", "BYTES"),
    "files of another shape": infer(len(RED).to_bytes(4, "little") + RED, [1, 2], "image_bytes", "BYTES"),
    "output of another name": open_inference_pb2.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}],
        outputs=[{"name": "logits"}],
        raw_input_contents=[bytes(PIXELS)],
    ),
    "negative count of classes": open_inference_pb2.ModelInferRequest(
        model_name="colours",
        inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}],
        outputs=[{"name": "probabilities", "parameters": {"classification": {"int64_param": -1}}}],
        raw_input_contents=[bytes(PIXELS)],
    ),
    "version of another form": open_inference_pb2.ModelInferRequest(model_name="colours", model_version="1; DROP"),
    "version of many digits": open_inference_pb2.ModelInferRequest(model_name="colours", model_version="9" * 5000),
    "cut short": infer(bytes(PIXELS), [1, 32, 32, 3]).SerializeToString()[:-5],
    "no message": b"\xff" * 100,
    "no message, long": b"\xff" * 100_000,
}

BROKEN_TENSORS = {
    "another size": predict(shape=[1, 2, 2, 3], dtype=UINT8, tensor_content=bytes(12)),
    "too few bytes": predict(shape=[1, 32, 32, 3], dtype=UINT8, tensor_content=bytes(PIXELS - 1)),
    "too many bytes": predict(shape=[1, 32, 32, 3], dtype=UINT8, tensor_content=bytes(PIXELS + 1)),
    "too many values": predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[0] * (PIXELS + 1)),
    "no data": predict(shape=[1, 32, 32, 3], dtype=UINT8),
    "data twice": predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[1], tensor_content=bytes(PIXELS)),
    "below 0": predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[-1]),
    "above 255": predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[256]),
    "negative": predict(shape=[-1, 32, 32, 3], dtype=UINT8, tensor_content=bytes(PIXELS)),
    "negative twice": predict(shape=[1, -32, -32, 3], dtype=UINT8, tensor_content=bytes(PIXELS)),
    "huge": predict(shape=[2**62, 32, 32, 3], dtype=UINT8, int_val=[1]),
    "no dimension": predict(shape=[], dtype=UINT8, tensor_content=bytes(PIXELS)),
    "many dimensions": predict(shape=[1] * 1000, dtype=UINT8, tensor_content=bytes(PIXELS)),
    "another type": predict(shape=[1, 32, 32, 3], dtype=FLOAT, float_val=[0.5]),
    "no type": predict(shape=[1, 32, 32, 3], tensor_content=bytes(PIXELS)),
    "type of no protocol": predict(shape=[1, 32, 32, 3], dtype=99, tensor_content=bytes(PIXELS)),
    "another name": predict("pixels", shape=[1, 32, 32, 3], dtype=UINT8, tensor_content=bytes(PIXELS)),
    "fewer files than its shape": predict("image_bytes", shape=[2], dtype=STRING, string_val=[RED]),
    "negative files": predict("image_bytes", shape=[-1], dtype=STRING, string_val=[RED]),
    "no files": predict("image_bytes", shape=[0], dtype=STRING),
    "no picture": predict("image_bytes", shape=[1], dtype=STRING, string_val=[b"123"]),
    "no input": tensorflow_serving_pb2.PredictRequest(model_spec={"name": "colours"}),
    "no message": b"\x0a",
}


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN)
def test_a_broken_tensor_of_v2_costs_no_more_than_an_error(connect: Open, request_: Any) -> None:
    """Whatever is wrong is a code and a sentence, and the same connection is answered afterwards."""
    caller = connect(max_batch=100)
    told = caller.call(V2 + "ModelInfer", request_)
    assert told.code == "INVALID_ARGUMENT"
    assert len(told.sentence) > 15
    assert caller.call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3])).code == "OK"


@pytest.mark.parametrize("request_", BROKEN_TENSORS.values(), ids=BROKEN_TENSORS)
def test_a_broken_tensor_of_tensorflow_costs_no_more_than_an_error(connect: Open, request_: Any) -> None:
    """The same of TensorFlow Serving's messages."""
    caller = connect(max_batch=100)
    told = caller.call(PREDICTION + "Predict", request_)
    assert told.code == "INVALID_ARGUMENT"
    assert len(told.sentence) > 15
    good = predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[7])
    assert caller.call(PREDICTION + "Predict", good).code == "OK"


def test_an_embedding_is_given_where_it_is_named(connect: Open, embedding: Path) -> None:
    """In both protocols it is an output of the model, and left out unless somebody asks for it."""
    caller = connect(models=embedding.parent.parent)
    request, plain_request = infer(bytes(PIXELS), [1, 32, 32, 3]), infer(bytes(PIXELS), [1, 32, 32, 3])
    request.outputs.add(name="embedding")
    [output] = caller.call(V2 + "ModelInfer", request).answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("embedding", "FP32", [1, 4])
    assert "embedding" not in {found.name for found in caller.call(V2 + "ModelInfer", plain_request).answer.outputs}
    other = predict(shape=[1, 32, 32, 3], dtype=UINT8, int_val=[7])
    assert "embedding" not in caller.call(PREDICTION + "Predict", other).answer.outputs
    other.output_filter.append("embedding")
    outputs = caller.call(PREDICTION + "Predict", other).answer.outputs
    assert list(outputs) == ["embedding"]
    assert len(outputs["embedding"].float_val) == 4
    assert caller.call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3], model="")).code == "OK"


def test_random_changes_of_messages_are_answered(connect: Open) -> None:
    """Of messages with some bytes changed, each is answered or is the client's fault, and never the service's."""
    caller, random = connect(max_batch=100), np.random.default_rng(0)
    originals = {
        V2 + "ModelInfer": infer(bytes(PIXELS), [1, 32, 32, 3]).SerializeToString(),
        PREDICTION + "Predict": predict("image_bytes", shape=[1], dtype=STRING, string_val=[RED]).SerializeToString(),
    }
    codes = set()
    for path, original in originals.items():
        for _ in range(200):
            changed = bytearray(original)
            for _ in range(random.integers(1, 4)):
                changed[random.integers(min(80, len(changed)))] = random.integers(256)
            codes.add(caller.call(path, bytes(changed)).code)
    assert codes <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert "INVALID_ARGUMENT" in codes


def test_a_batch_over_the_limit_is_refused(connect: Open) -> None:
    """MAX_BATCH holds for pixels, values and files alike."""
    caller = connect(max_batch=2)
    files = b"".join([len(RED).to_bytes(4, "little") + RED] * 3)
    values = predict(shape=[3, 32, 32, 3], dtype=UINT8, int_val=[1])
    for path, request in (
        (V2 + "ModelInfer", infer(bytes(3 * PIXELS), [3, 32, 32, 3])),
        (V2 + "ModelInfer", infer(files, [3], "image_bytes", "BYTES")),
        (PREDICTION + "Predict", values),
        (PREDICTION + "Predict", predict("image_bytes", shape=[3], dtype=STRING, string_val=[RED] * 3)),
    ):
        told = caller.call(path, request)
        assert (told.code, "at most 2" in told.sentence) == ("INVALID_ARGUMENT", True)


def test_a_message_over_the_limit_is_refused(connect: Open) -> None:
    """MAX_BODY_BYTES holds for messages, also for those that are compressed on the way."""
    caller = connect(max_body_bytes=10_000)
    assert caller.call(V2 + "ModelInfer", bytes(10_001)).code == "RESOURCE_EXHAUSTED"
    method = caller.channel.unary_unary(V2 + "ModelInfer")
    with pytest.raises(grpc.RpcError) as raised:
        method(bytes(1_000_000), compression=grpc.Compression.Gzip, timeout=30)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caller.call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3])).code == "OK"


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (open_inference_pb2.ModelInferRequest, b"\x2a\x00"),  # an empty input
        (tensorflow_serving_pb2.PredictRequest, b"\x12\x00"),  # an empty entry of a map
        (tensorflow_serving_pb2.ClassificationRequest, b"\x12\x04\x0a\x02\x0a\x00"),  # an example, three levels deep
    ],
)
def test_many_small_parts_are_refused_before_they_take_memory(kind: Any, part: bytes) -> None:
    """Empty parts take up to fifty times their bytes, so they are counted first; those of a plain request are few."""
    with pytest.raises(TooManyItems, match="parts"):
        parse(part * 100_000, kind, most=21_000)
    assert len(parse(part * 100, kind, most=21_000).SerializeToString()) > 0
    with pytest.raises(InvalidRequest):
        parse(part * 40_000 + b"\xff", kind, most=1_000_000)


def test_a_request_of_many_pictures_has_few_parts() -> None:
    """As many examples as MAX_BATCH allows, each with a picture, are read."""
    request = tensorflow_serving_pb2.ClassificationRequest()
    for _ in range(1000):
        feature = request.input.example_list.examples.add().features.feature["image_bytes"]
        feature.bytes_list.value.append(RED)
    assert parse(request.SerializeToString(), tensorflow_serving_pb2.ClassificationRequest, 21_000) == request


def test_who_may_ask(connect: Open, services: list[Services]) -> None:
    """Tokens let in as over HTTP: probes need none, predictions do, and what changes something always does."""
    token = Token("shop", hashlib.sha256(b"secret").digest())
    caller = connect(api_tokens=(token,))
    good = infer(bytes(PIXELS), [1, 32, 32, 3])
    bearer = {"authorization": "Bearer secret"}
    refused = caller.call(V2 + "ModelInfer", good)
    assert (refused.code, "token" in refused.sentence) == ("UNAUTHENTICATED", True)
    assert caller.call(V2 + "ModelInfer", good, {"authorization": "Bearer other"}).code == "UNAUTHENTICATED"
    assert caller.call(V2 + "ModelInfer", good, bearer).code == "OK"
    for probe in (V2 + "ServerLive", V2 + "ServerReady", HEALTH):
        assert caller.call(probe, b"").code == "OK"
    guarded = (V2 + "RepositoryModelLoad", V2 + "RepositoryModelUnload", MODEL + "HandleReloadConfigRequest")
    for path, code in zip(guarded, ("NOT_FOUND", "NOT_FOUND", "INVALID_ARGUMENT"), strict=True):
        assert caller.call(path, b"").code == "UNAUTHENTICATED"
        assert caller.call(path, b"", bearer).code == code
    assert counted(services[0], V2 + "ModelInfer", "UNAUTHENTICATED") == 2
    everybody = connect()
    for path in guarded:
        assert everybody.call(path, b"").code == "PERMISSION_DENIED"


def test_who_may_not_ask_sends_nothing(connect: Open) -> None:
    """A call without a token is refused before its message has come."""
    caller = connect(api_tokens=(Token("shop", hashlib.sha256(b"secret").digest()),))
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(20)
        yield b""

    with pytest.raises(grpc.RpcError) as raised:
        caller.channel.stream_unary(V2 + "ModelInfer")(messages(), timeout=10)
    never.set()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_rates(connect: Open) -> None:
    """RATE_LIMIT holds for the address of the caller."""
    caller = connect(rate_limit=("3/minute",))
    good = infer(bytes(PIXELS), [1, 32, 32, 3])
    assert [caller.call(V2 + "ModelInfer", good).code for _ in range(4)] == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"]
    assert caller.call(V2 + "ServerReady", b"").code == "OK"


def test_ids_and_metrics(connect: Open, services: list[Services]) -> None:
    """A call has the id that it asks for, or one of its own; calls and errors are counted by method and code."""
    caller = connect()
    good = infer(bytes(PIXELS), [1, 32, 32, 3])
    assert caller.call(V2 + "ModelInfer", good, {"x-request-id": "a-name"}).metadata["x-request-id"] == "a-name"
    assert len(caller.call(V2 + "ModelInfer", good).metadata["x-request-id"]) == 32
    told = caller.call(V2 + "ModelInfer", infer(b"", [1], model="shapes"), {"x-request-id": "another"})
    assert (told.code, told.metadata["x-request-id"]) == ("NOT_FOUND", "another")
    assert counted(services[0], V2 + "ModelInfer", "OK") == 2
    assert counted(services[0], V2 + "ModelInfer", "NOT_FOUND") == 1
    errors: Any = services[0].metrics.errors.labels("unknown_model")
    assert errors._value.get() == 1
    in_flight: Any = services[0].metrics.in_flight
    assert in_flight._value.get() == 0


def test_readiness(connect: Open) -> None:
    """A service that stops, or that has no model, says that it is not ready; it still answers while it can."""
    for caller, ready in ((connect(), True), (connect(draining=True), False), (connect(model_name="none"), False)):
        assert caller.call(V2 + "ServerLive", b"").answer.live
        assert caller.call(V2 + "ServerReady", b"").answer.ready is ready
        assert caller.call(HEALTH, b"").answer.status == (1 if ready else 2)
    told = connect(model_name="none").call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3], model=""))
    assert (told.code, told.metadata["retry-after"]) == ("UNAVAILABLE", "5")


@pytest.mark.slow
def test_a_client_that_sends_nothing_keeps_nobody_out(connect: Open) -> None:
    """Where all turns to receive are taken by silent clients, these are ended and the next one is answered."""
    caller = connect(most=MOST._replace(room=1), max_body_bytes=100_000)  # one turn
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(30)
        yield b""

    silent = caller.channel.stream_unary(V2 + "ModelInfer").future(messages(), timeout=30)
    time.sleep(0.2)
    started = time.monotonic()
    assert caller.call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3])).code == "OK"
    assert time.monotonic() - started < 5
    assert isinstance(silent.exception(timeout=10), grpc.RpcError)
    never.set()


class Silent:
    """A client that asks by HTTP/2 and lets the server send it no byte of an answer."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.connection = socket.create_connection((host, int(port)), timeout=30)
        self.connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack("!HL", 4, 0)))

    def ask(self, path: str, content: bytes, stream: int) -> None:
        """Call ``path``."""
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        block = b"".join(b"\x00" + text(name) + text(value) for name, value in headers.items())
        message = struct.pack("!BL", 0, len(content)) + content
        self.connection.sendall(frame(1, 4, stream, block) + frame(0, 1, stream, message))


def text(value: str) -> bytes:
    """Return a short text as headers of HTTP/2 have it."""
    return bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack("!L", len(content))[1:] + struct.pack("!BBL", kind, flags, stream) + content


@pytest.mark.timing
def test_answers_that_nobody_takes_are_bounded(connect: Open) -> None:
    """Beyond so many bytes of them calls are refused; who takes none has to leave, and all are answered again."""
    good = infer(bytes(PIXELS), [1, 32, 32, 3])
    size = len(connect().call(V2 + "ModelInfer", good).answer.SerializeToString())
    caller = connect(most=MOST._replace(unsent=4 * size - 1), request_deadline=2.0)
    silent = Silent(caller.address)
    for stream in (1, 3, 5):
        silent.ask(V2 + "ModelInfer", good.SerializeToString(), stream)
    deadline = time.monotonic() + 10
    while caller.call(V2 + "ModelInfer", good).code == "OK":
        assert time.monotonic() < deadline
    told = caller.call(V2 + "ModelInfer", good)
    assert (told.code, "take" in told.sentence) == ("RESOURCE_EXHAUSTED", True)
    while caller.call(V2 + "ModelInfer", good).code != "OK":
        assert time.monotonic() < deadline
    silent.connection.close()


@pytest.mark.slow
def test_more_connections_than_are_allowed_are_closed(connect: Open) -> None:
    """Whoever opens many keeps only his own from being answered."""
    caller = connect(most=MOST._replace(connections=10))
    assert caller.call(V2 + "ServerLive", b"").code == "OK"
    host, port = caller.address.split(":")
    opened = [socket.create_connection((host, int(port)), timeout=10) for _ in range(15)]
    closed = 0
    for connection in opened:
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while block := connection.recv(4096):
                assert block
            closed += 1
    assert closed >= 5
    assert caller.call(V2 + "ServerLive", b"").code == "OK"
    for connection in opened:
        connection.close()


def test_more_calls_than_may_wait_are_refused(connect: Open) -> None:
    """While QUEUE_LENGTH calls have begun, another one is refused at once."""
    caller = connect(queue_length=2)
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(30)
        yield b""

    silent = [caller.channel.stream_unary(V2 + "ModelInfer").future(messages(), timeout=30) for _ in range(2)]
    time.sleep(0.2)
    other = Caller(caller.address)
    assert other.call(V2 + "ServerLive", b"").code == "RESOURCE_EXHAUSTED"
    for call in silent:
        call.cancel()
    time.sleep(0.2)
    assert other.call(V2 + "ServerLive", b"").code == "OK"
    other.close()
    never.set()


def test_more_streams_than_threads_are_refused(connect: Open) -> None:
    """As many streams are open as there are THREADS, and calls of their own are answered beside them."""
    caller = connect(threads=2)
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        yield infer(bytes(PIXELS), [1, 32, 32, 3]).SerializeToString()
        never.wait(30)

    streams = [caller.channel.stream_stream(V2 + "ModelStreamInfer")(messages(), timeout=30) for _ in range(2)]
    for stream in streams:
        assert open_inference_pb2.ModelStreamInferResponse.FromString(next(stream)).error_message == ""
    with pytest.raises(grpc.RpcError) as raised:
        next(caller.channel.stream_stream(V2 + "ModelStreamInfer")(messages(), timeout=30))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caller.call(V2 + "ModelInfer", infer(bytes(PIXELS), [1, 32, 32, 3])).code == "OK"
    never.set()


def test_an_open_stream_does_not_hold_up_the_end(services_of: MakeServices, models: Path, tmp_path: Path) -> None:
    """A stream whose client says nothing is ended when the port closes, which takes about as long as without it."""
    port = free_port()
    opened = GrpcPort(services_of(model_dir=models), lambda work: work(), port, MOST, tmp_path)
    caller = Caller(f"127.0.0.1:{port}")
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        yield infer(bytes(PIXELS), [1, 32, 32, 3]).SerializeToString()
        never.wait(30)

    stream = caller.channel.stream_stream(V2 + "ModelStreamInfer")(messages(), timeout=30)
    next(stream)
    started = time.monotonic()
    leave(opened)
    assert time.monotonic() - started < 4
    never.set()
    caller.close()


def test_what_is_missing_is_told(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without grpcio, GRPC_PORT is refused by a sentence that names the extra."""
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert main([], {"GRPC_PORT": str(free_port()), "MODEL_DIR": str(models)}) == 2
    assert "pip install 'darkroom[service,grpc]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program at the port is found before anything starts, though several may share a port that want to."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([], {"GRPC_PORT": str(port), "PORT": str(free_port()), "MODEL_DIR": str(models)}) == 2
    assert f"GRPC_PORT is {port}, but that address cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["8000", "8001"])
def test_a_port_that_http_has_is_refused(port: str) -> None:
    """GRPC_PORT is a port of its own."""
    with pytest.raises(SettingsError, match="GRPC_PORT"):
        Settings.from_environment({"GRPC_PORT": port, "ADMIN_PORT": "8001"})
