"""What all calls share: who may ask, ids, deadlines, memory, errors as gRPC's codes, and what is noted of each."""

import ipaddress
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn

import grpc

from machine import lasting_thread, start_thread
from service.inference.errors import InvalidRequest, QueueFull, SlowBody
from service.inference.loaded import LoadedModel
from service.protocols.grpc.wire import parse
from service.web.errors import REASONS, Failure, failure_of_call
from service.web.notes import Answered
from service.web.services import Services
from service.web.which import version_in

Code = grpc.StatusCode
Context = Any  # grpc.ServicerContext
Message = Any  # of a class that protoc made

_METHOD = "GRPC"  # stands where requests by HTTP have their method
_MOST_DETAILS = 2000  # characters; they travel as a header, and clients take 8 KiB of those
_PARTS = 1000  # that a message may have beside its pictures
_PARTS_OF_A_PICTURE = 20
_PATIENCE = 2.0  # seconds for a message, where others wait for their turn to send one
_LOOK_SECONDS = 0.5  # between two looks at messages that are late

# Of what HTTP says by its statuses; what is full is told as gRPC itself tells that too many calls run.
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    413: Code.INVALID_ARGUMENT,
    415: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_FULL = "queue_full"
_OF_PREDICTIONS = (
    *(Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE),
    *(Code.DEADLINE_EXCEEDED, Code.INTERNAL),
)


class Method(NamedTuple):
    """One method of a service: the class of its requests, and what answers one by a deadline, a time of the clock.

    Where there is a ``fault``, which makes an answer of a sentence on what is wrong, each message of a stream gets one.
    """

    request: Any
    answer: Callable[[Services, Message, float], Message]
    predicts: bool = False
    fault: Callable[[str], Message] | None = None


class Limits(NamedTuple):
    """How much the calls of one worker may take together."""

    room: int  # bytes of messages that are being answered
    unsent: int  # bytes of answers that their clients do not take
    receiving: int  # messages that come at the same time
    streams: int  # that are open


STICKY: ContextVar[str | None] = ContextVar("sticky", default=None)
"""What keeps the calls of one client on one of the versions that share them, of the call that is being answered."""


@contextmanager
def use_model(services: Services, name: str, version: str) -> Iterator[LoadedModel]:
    """Give the version that a call asks for, to predict with it; an empty ``name`` or ``version`` asks for any.

    Raises:
        ServiceError: as ``Models.use``.
    """
    with services.models.use(name or None, _which(version), STICKY.get()) as model:
        yield model


def check_model(services: Services, name: str, version: str) -> LoadedModel:
    """Return the version that a call asks for, to look at it; see ``use_model``."""
    return services.models.check(name or None, _which(version))


def _which(version: str) -> int | str | None:
    """Return the number of a version, or its label; None where none is asked for, by an empty text or by 0."""
    return version_in(version) if version not in ("", "0") else None


class Calls:
    """Answers calls in the threads of gRPC's server, each when it is its turn to work."""

    def __init__(
        self, services: Services, in_turn: Callable[[Callable[[], bytes]], bytes], port: int, limits: Limits
    ) -> None:
        """Take what calls work with, what runs work in its turn, and the port, by which access is decided."""
        self._services = services
        self._in_turn = in_turn
        self._port = str(port)
        self._most_parts = _PARTS + _PARTS_OF_A_PICTURE * services.settings.max_batch
        self._room = _Room(limits.room)
        self._watch = _Watch(services.settings.request_deadline)
        self._receiving = _Receiving(limits.receiving, self._watch)
        self._unsent = _Unsent(limits.unsent, self._watch)
        self._streams = _Streams(limits.streams)

    def handlers(self, service: str, methods: Mapping[str, Method]) -> Any:
        """Return what gRPC's server calls for the ``methods`` of ``service`` by their names."""
        routes = {name: f"/{service}/{name}" for name in methods}
        answers = [
            (routes[name], _METHOD, code.name)
            for name, method in methods.items()
            if method.predicts
            for code in _OF_PREDICTIONS
        ]
        self._services.notes.expect(answers, REASONS)
        return grpc.method_handlers_generic_handler(
            service, {name: self._handler(routes[name], method) for name, method in methods.items()}
        )

    def hang_up(self) -> None:
        """End the streams that wait for a message of their client, and begin none: the service stops."""
        self._streams.hang_up()

    def close(self) -> None:
        """End the thread that looks at who is late."""
        self._watch.close()

    def _handler(self, route: str, method: Method) -> Any:
        # A client's one message comes as a stream of one, so that who may not ask, or what is too much, is refused
        # before it is received.
        if method.fault is not None:
            return grpc.stream_stream_rpc_method_handler(
                lambda messages, context: self._each(route, method, messages, context)
            )
        return grpc.stream_unary_rpc_method_handler(
            lambda messages, context: self._one(route, method, messages, context)
        )

    def _one(self, route: str, method: Method, messages: Iterator[bytes], context: Context) -> bytes:
        """Return the answer to a call with one message; abort the call where there is none."""
        call = _Call(self._services, route, context, self._port)
        try:
            call.admit()
            content = self._receiving.next(messages, context)
            if content is None:
                raise InvalidRequest("The call ended before its message came.")
            answer = self._answer(method, content, call)
            self._unsent.hold(len(answer), context)
        except Exception as error:  # noqa: BLE001 - a method may raise anything, as a view may
            call.fail(error)
        finally:
            call.end()
        return answer

    def _each(self, route: str, method: Method, messages: Iterator[bytes], context: Context) -> Iterator[bytes]:
        """Yield an answer to each message of a stream."""
        call = _Call(self._services, route, context, self._port)
        try:
            call.admit()
            with self._streams.turn(context) as next_of:
                while (content := next_of(messages)) is not None:
                    yield self._answer_or_fault(method, content, call)
        except Exception as error:  # noqa: BLE001 - as above
            call.fail(error)
        finally:
            call.end()

    def _answer_or_fault(self, method: Method, content: bytes, call: "_Call") -> bytes:
        try:
            return self._answer(method, content, call)
        except Exception as error:
            if method.fault is None:
                raise
            fault: bytes = method.fault(call.failure(error).message).SerializeToString()
            return fault

    def _answer(self, method: Method, content: bytes, call: "_Call") -> bytes:
        """Return the answer to the message in ``content``."""
        deadline = call.deadline()

        def work() -> bytes:
            if not call.active():  # while it waited for its turn
                raise grpc.RpcError
            message = parse(content, method.request, self._most_parts)
            answer: bytes = method.answer(self._services, message, deadline).SerializeToString()
            return answer

        with self._room.take(len(content)):
            answer = self._in_turn(work)
        call.size += len(answer)
        return answer


class _Call:
    """One call: what its metadata says, and what becomes of it."""

    def __init__(self, services: Services, route: str, context: Context, port: str) -> None:
        self.size = 0  # of the answers, in bytes
        self._services = services
        self._route = route
        self._context = context
        sent = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self._environ = {  # what ``Access`` reads
            "REQUEST_METHOD": "POST",
            "SERVER_PORT": port,
            "REMOTE_ADDR": _address(context.peer()),
            "HTTP_X_FORWARDED_FOR": sent.get("x-forwarded-for", ""),
            "HTTP_AUTHORIZATION": sent.get("authorization"),
        }
        traced = {f"HTTP_{name.upper()}": sent[name] for name in ("traceparent", "tracestate") if name in sent}
        self._user: str | None = None
        self._code = Code.OK
        begun = {"REQUEST_METHOD": _METHOD, "HTTP_X_REQUEST_ID": sent.get("x-request-id", ""), **traced}
        self._begun = services.notes.begin({**self._environ, **begun}, route, route)
        STICKY.set(sent.get("x-darkroom-sticky"))
        if services.captures is not None:
            services.captures.heed(sent.get("x-darkroom-capture"))

    def admit(self) -> None:
        """Send the id of the call, and let it in or raise what ``Access.check`` does."""
        self._context.send_initial_metadata((("x-request-id", self._begun.request_id),))
        self._user = self._services.access.check(self._environ, self._route)

    def active(self) -> bool:
        """Say whether somebody waits for the answer."""
        return bool(self._context.is_active())

    def deadline(self) -> float:
        """Return when a message that is here now must be answered, as a time of the clock."""
        left = self._context.time_remaining()
        deadline = self._services.deadline()
        return deadline if left is None else min(deadline, self._services.clock() + left)

    def failure(self, error: Exception) -> Failure:
        """Return what ``error`` is to the client; count it."""
        failure = failure_of_call(error, self._route)
        self._services.notes.error(failure.name)
        return failure

    def fail(self, error: Exception) -> NoReturn:
        """End the call with the code and the sentence of ``error``; it raises what gRPC's server waits for."""
        if isinstance(error, grpc.RpcError):  # of the client, who is gone
            self._code = Code.CANCELLED
            raise error
        failure = self.failure(error)
        self._code = Code.RESOURCE_EXHAUSTED if failure.name == _FULL else _CODES.get(failure.status, Code.UNKNOWN)
        if failure.retry_after is not None:
            self._context.set_trailing_metadata((("retry-after", str(failure.retry_after)),))
        self._context.abort(self._code, failure.message[:_MOST_DETAILS])
        raise AssertionError("abort raises")

    def end(self) -> None:
        """Note what became of the call."""
        client = self._services.access.client(self._environ)
        answered = Answered(self._route, _METHOD, self._code.name, client, self._route, self.size, self._user)
        self._services.notes.end(self._begun, answered)
        self._services.notes.leave()


def _address(peer: str) -> str:
    """Return the address in what gRPC calls a peer, such as ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    host = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return peer


class _Room:
    """How many bytes the messages that are being answered may take together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        with self._lock:
            if self._taken + size > self._limit:
                raise QueueFull("The messages of other calls take all the memory there is; try again in a moment.")
            self._taken += size
        try:
            yield
        finally:
            with self._lock:
                self._taken -= size


class _Watch:
    """Ends calls that wait too long for their clients: for a message, or until an answer is taken."""

    def __init__(self, patience: float) -> None:
        self.hurry = 0  # how many others wait for what those keep
        self._patience = patience
        self._lock = threading.Lock()
        self._since: dict[Context, float] = {}
        self._closed = threading.Event()
        start_thread(lasting_thread(self._look, "late calls"))

    def begin(self, context: Context) -> None:
        """Begin to wait for a client."""
        with self._lock:
            self._since[context] = time.monotonic()

    def end(self, context: Context) -> bool:
        """End to wait for it; say whether it came in time."""
        with self._lock:
            return self._since.pop(context, None) is not None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            patience = min(_PATIENCE, self._patience) if self.hurry else self._patience
            with self._lock:
                late = [context for context, since in self._since.items() if time.monotonic() > since + patience]
            for context in late:
                if self.end(context):
                    context.cancel()


class _Receiving:
    """Receives messages, a few at the same time; who sends slowly has to leave, sooner where others wait."""

    def __init__(self, most: int, watch: _Watch) -> None:
        self._turns = threading.Semaphore(most)
        self._watch = watch
        self._lock = threading.Lock()

    def next(self, messages: Iterator[bytes], context: Context) -> bytes | None:
        """Return the next message; None where the client sends no more.

        Raises:
            SlowBody: it did not come in time.
        """
        with self._turn():
            self._watch.begin(context)
            try:
                return next(messages, None)
            except grpc.RpcError as error:
                if self._watch.end(context):
                    raise
                raise SlowBody("The message stopped coming, or came too slowly.") from error
            finally:
                self._watch.end(context)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._count_waiting(1)
        try:
            self._turns.acquire()
        finally:
            self._count_waiting(-1)
        try:
            yield
        finally:
            self._turns.release()

    def _count_waiting(self, more: int) -> None:
        with self._lock:
            self._watch.hurry += more


class _Unsent:
    """Answers that are on their way: so many bytes, and none for longer than a client may take to read it."""

    def __init__(self, limit: int, watch: _Watch) -> None:
        self._limit = limit
        self._watch = watch
        self._lock = threading.Lock()
        self._taken = 0

    def hold(self, size: int, context: Context) -> None:
        """Count an answer until its call has ended.

        Raises:
            QueueFull: too much waits for slow clients.
        """
        with self._lock:
            if self._taken + size > self._limit:
                raise QueueFull(
                    "The answers to other calls wait for their clients to take them; try again in a moment."
                )
            self._taken += size

        def let_go() -> None:
            self._watch.end(context)
            with self._lock:
                self._taken -= size

        try:
            self._watch.begin(context)
            ended = not context.add_callback(let_go)
        except BaseException:
            let_go()
            raise
        if ended:
            let_go()


class _Streams:
    """The open streams, of which there may be a few: each keeps a thread for as long as its client likes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open: dict[Context, bool] = {}  # and whether each waits for its client
        self._stopping = False

    @contextmanager
    def turn(self, context: Context) -> Iterator[Callable[[Iterator[bytes]], bytes | None]]:
        """Count a stream for the time of the block, and give what returns its next message; None at its end."""
        with self._lock:
            if len(self._open) >= self._most:
                raise QueueFull(f"There are {self._most} open streams, and no more are allowed; use separate calls.")
            self._open[context] = False

        def next_message(messages: Iterator[bytes]) -> bytes | None:
            with self._lock:
                if self._stopping:
                    return None
                self._open[context] = True
            try:
                return next(messages, None)
            finally:
                with self._lock:
                    self._open[context] = False

        try:
            yield next_message
        finally:
            with self._lock:
                del self._open[context]

    def hang_up(self) -> None:
        """End those that wait for their client, and the others after what they answer now."""
        with self._lock:
            self._stopping = True
            idle = [context for context, waits in self._open.items() if waits]
        for context in idle:
            context.cancel()
