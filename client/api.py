"""The client as a library: pictures in, results out."""

import os
import threading
import urllib.parse
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any

from client.paths import Picture, given, unreadable
from client.pipeline import ordered_map
from client.results import Busy, Model, Prediction, Refused, RequestFailed, Result, TooLarge
from client.transport import Transport, not_darkroom

DEFAULT_URL = "http://localhost:8000"
BATCH_SIZE = 32  # pictures
BATCH_BYTES = 8 * 1024 * 1024
JOBS = 4
TIMEOUT = 60.0  # seconds
RETRIES = 5

Found = Picture | Result  # a result where a path led to no picture
_Content = tuple[str, bytes]  # a file's name and what is in it


class Client:
    """Classifies pictures with a Darkroom service, several requests at once.

    >>> with Client("http://localhost:8000") as client:
    ...     for result in client.predict(["photos", "frog.jpg"]):
    ...         print(result.file, result.predictions or result.message)

    The memory it takes does not depend on the number of pictures: at most ``jobs`` requests are on their way.
    requests' own environment variables hold here too: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE and so on.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        top: int = 1,
        jobs: int = JOBS,
        batch_size: int = BATCH_SIZE,
        batch_bytes: int = BATCH_BYTES,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        headers: Mapping[str, str] | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> None:
        """Take the service's address, how many labels to ask for, and how to ask.

        ``model`` answers, and of it ``version``, a number or a label; without them it is the service that chooses.

        A request holds up to ``batch_size`` pictures of together up to ``batch_bytes``, or a larger one alone.
        ``timeout`` is the longest wait for an answer in seconds. ``headers`` go with every request.

        Raises:
            ValueError: the address is not that of a web server.
        """
        self._transport = Transport(url, timeout, retries, headers or {})
        self._which = {
            name: str(value) for name, value in (("model", model), ("version", version)) if value is not None
        }
        self._path = self._route("/predict/batch", top=str(top))
        self._jobs = jobs
        self._most_pictures = batch_size
        self._most_bytes = batch_bytes
        self._answered = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def model(self) -> dict[str, Any]:
        """Return what ``GET /model`` tells: name, version, labels, metrics and so on.

        Raises:
            RequestFailed: the service does not answer.
        """
        return self._transport.request("GET", self._route("/model"), threading.Event())

    def explain(self, content: bytes, label: str | None = None) -> bytes:
        """Return a PNG of the heat map over the picture whose file holds ``content``: what spoke for ``label``, where.

        Without one, it is of the most probable label.

        Raises:
            RequestFailed: the service does not answer, or not so; a picture that cannot be used is ``Refused``.
        """
        path = self._route("/explain", format="png", **({} if label is None else {"label": label}))
        return self._transport.content("POST", path, threading.Event(), [("image", ("picture", content))])

    def predict(self, paths: Iterable[str | os.PathLike[str]]) -> Generator[Result, None, None]:
        """Yield a result for each picture behind ``paths``, in order: files, folders, glob patterns, ``-`` for stdin.

        What is wrong with one picture is in its result.

        Raises:
            Busy: the service has classified nothing yet, and cannot be reached (``Unreachable``) or stays busy.
            Refused: it has classified nothing yet, and does not take such requests.
        """
        found = (picture for path in paths for picture in given(os.fspath(path)))
        with closing(self.predict_found(found)) as batches:
            for results in batches:
                yield from results

    def predict_found(self, found: Iterable[Found]) -> Generator[list[Result], None, None]:
        """Yield the results of what ``client.paths`` found, those of one request at a time; else as ``predict``."""
        stop = threading.Event()
        try:
            with closing(ordered_map(partial(self._classify, stop), self._batches(found), self._jobs)) as batches:
                yield from batches
        finally:
            stop.set()

    def _route(self, path: str, **query: str) -> str:
        """Return ``path`` with a query that says which model is asked, beside what it says anyway."""
        query |= self._which
        return f"{path}?{urllib.parse.urlencode(query, errors='surrogateescape')}" if query else path

    def _batches(self, found: Iterable[Found]) -> Iterator[list[Found]]:
        """Cut ``found`` into what one request may hold, which can become less on the way."""
        batch: list[Found] = []
        size = 0
        for item in found:
            # What a pipe holds is not known, so that it goes alone.
            more = 0 if isinstance(item, Result) else self._most_bytes if item.size is None else item.size
            if batch and (len(batch) >= self._most_pictures or size + more > self._most_bytes):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += more
        if batch:
            yield batch

    def _classify(self, stop: threading.Event, batch: Sequence[Found]) -> list[Result]:
        """Return the results of ``batch``, in order, from one request or more."""
        read = [_read(item) for item in batch]
        answers = iter(self._ask(stop, [item for item in read if not isinstance(item, Result)]))
        return [item if isinstance(item, Result) else next(answers) for item in read]

    def _ask(self, stop: threading.Event, contents: Sequence[_Content]) -> list[Result]:
        """Return a result for each of ``contents``; what is too large for one request goes in halves."""
        if not contents:
            return []
        try:
            return self._request(stop, contents)
        except TooLarge as error:
            if len(contents) > 1:
                self._send_less(error, contents)
                middle = len(contents) // 2
                return self._ask(stop, contents[:middle]) + self._ask(stop, contents[middle:])
            return _failed(contents, error)
        except RequestFailed as error:
            if isinstance(error, Busy | Refused) and not self._answered:
                raise
            return _failed(contents, error)

    def _request(self, stop: threading.Event, contents: Sequence[_Content]) -> list[Result]:
        # The answers are told apart by their order. What people call their files stays with them.
        files = [("images", ("picture", content)) for _, content in contents]
        answer = self._transport.request("POST", self._path, stop, files)
        try:
            model = Model(str(answer["model"]["name"]), int(answer["model"]["version"]))
            results = [_result(file, item, model) for (file, _), item in zip(contents, answer["results"], strict=True)]
        except (LookupError, TypeError, ValueError) as error:
            raise not_darkroom(self._transport.url) from error
        self._answered = True
        return results

    def _send_less(self, error: TooLarge, contents: Sequence[_Content]) -> None:
        """Make the next batches small enough, so that they need not be sent twice."""
        if error.name == "too_many_items":
            self._most_pictures = min(self._most_pictures, len(contents) // 2)
        else:
            self._most_bytes = min(self._most_bytes, sum(len(content) for _, content in contents) // 2)


def _read(item: Found) -> _Content | Result:
    if isinstance(item, Result):
        return item
    try:
        return item.file, item.read()
    except (OSError, ValueError) as error:
        return unreadable(item.file, error)


def _result(file: str, item: dict[str, Any], model: Model) -> Result:
    if "error" in item:
        return Result(file, error=str(item["error"]), message=str(item["message"]))
    predictions, labels = _predictions(item["predictions"]), item.get("labels")
    familiar = bool(item["familiar"]) if "familiar" in item else None
    return Result(file, predictions, model, familiar=familiar, labels=None if labels is None else _predictions(labels))


def _predictions(items: Iterable[Mapping[str, Any]]) -> tuple[Prediction, ...]:
    return tuple(Prediction(str(each["label"]), float(each["probability"])) for each in items)


def _failed(contents: Sequence[_Content], error: RequestFailed) -> list[Result]:
    return [Result(file, error=error.name, message=str(error)) for file, _ in contents]
