"""HTTP to one service: kept-alive connections, retries, and one error for each way in which it can go wrong."""

import email.utils
import http
import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from requests.auth import AuthBase

from client.results import Busy, Refused, RequestFailed, TooLarge, Unreachable

Files = Sequence[tuple[str, tuple[str, bytes]]]

_CONNECT_SECONDS = 5.0
_LONGEST_WAIT = 60.0  # seconds of pauses that one request may cost, all of them together
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds, where the service names none
_BUSY = (408, 429, 502, 503, 504)


class Transport:
    """Sends requests from any thread. Close it when it is done with."""

    def __init__(self, url: str, timeout: float, retries: int, headers: Mapping[str, str]) -> None:
        """Take the service's address, the longest wait for an answer in seconds, and how often to try again.

        Raises:
            ValueError: the address is not that of a web server.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The address {url!r} must begin with http:// or https://.")
        self.url = url.rstrip("/")
        self._timeout = (min(timeout, _CONNECT_SECONDS), timeout)
        self._retries = retries
        self._headers = headers
        self._idle: deque[requests.Session] = deque()
        self._reachable = False  # as far as is known

    def close(self) -> None:
        """Close the connections that wait for another request."""
        while self._idle:
            self._idle.pop().close()

    def request(self, method: str, path: str, stop: threading.Event, files: Files = ()) -> dict[str, Any]:
        """Return the JSON object that the service answers; raises what ``content`` does."""
        return _object(self.content(method, path, stop, files), self.url)

    def content(self, method: str, path: str, stop: threading.Event, files: Files = ()) -> bytes:
        """Return what the service answers.

        A busy service is asked again after the time it names, else after a growing one with some chance in it, which
        keeps clients apart. One that has never answered, or did not come back for another request, is asked once.

        Raises:
            RequestFailed: there is no usable answer, or ``stop`` was set during a pause.
        """
        waited = 0.0
        for attempt in itertools.count():
            try:
                return self._once(method, path, files)
            except Busy as error:
                pause = _pause(attempt, error.retry_after)
                waited += pause
                if attempt >= self._retries_now() or waited > _LONGEST_WAIT or stop.wait(pause):
                    if isinstance(error, Unreachable):
                        self._reachable = False
                    raise
        raise AssertionError  # the loop above ends by return or raise

    def _retries_now(self) -> int:
        """Return how often to try again: thousands of requests must not each wait for a service that is gone."""
        return self._retries if self._reachable else 0

    def _once(self, method: str, path: str, files: Files) -> bytes:
        with self._session() as session:
            try:
                response = session.request(
                    method, self.url + path, files=files or None, timeout=self._timeout, allow_redirects=False
                )
            except requests.Timeout as error:
                raise Unreachable("unreachable", f"{self.url} did not answer in time.") from error
            except requests.RequestException as error:
                if isinstance(error, ValueError):  # requests' own word for an address or a header that cannot be used
                    raise Refused("bad_request", str(error)) from error
                raise Unreachable("unreachable", f"Nothing answers at {self.url}: {_reason(error)}.") from error
        self._reachable = True
        if not response.ok or response.is_redirect:
            raise _failure(response, self.url)
        return response.content

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """Lend a session, which keeps its connection, to one thread at a time."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = requests.Session()
            if self._headers:
                session.auth = _AsGiven(self._headers)
        try:
            yield session
        finally:
            self._idle.append(session)


class _AsGiven(AuthBase):
    """Sets headers last: requests would put what it finds in ~/.netrc in the place of an Authorization header."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


def _pause(attempt: int, retry_after: float | None) -> float:
    """Return how long to wait before the next attempt, in seconds."""
    chance = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    if retry_after is not None:
        return retry_after + chance * _FIRST_PAUSE
    return chance * min(_FIRST_PAUSE * 2.0**attempt, _LONGEST_PAUSE)


def _failure(response: requests.Response, url: str) -> RequestFailed:
    name, message = _error(response)
    if response.status_code == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge(name, message)
    if response.status_code in _BUSY:
        return Busy(name, message, _retry_after(response.headers.get("Retry-After")))
    if response.status_code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestFailed(name, message)
    if response.is_redirect:
        message = f"it points to {response.headers['Location']}, so give the service's address there"
    return Refused(name, f"{url} answered {response.status_code} {response.reason}: {message}")


def _error(response: requests.Response) -> tuple[str, str]:
    """Return the error's name and message: the service's own, or what stands for the status of another server."""
    try:
        document = response.json()
        return str(document["error"]), str(document["message"])
    except (ValueError, TypeError, KeyError):
        return f"http_{response.status_code}", f"The server answered {response.status_code} {response.reason}."


def _object(content: bytes, url: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise not_darkroom(url)
    return document


def not_darkroom(url: str) -> Refused:
    """Return the error for an answer of another form than the service's."""
    return Refused("bad_answer", f"{url} answers, but not as a Darkroom service does; is the address right?")


def _retry_after(text: str | None) -> float | None:
    """Return the seconds in a Retry-After header, which holds a number or a date; None where it holds neither."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _reason(error: BaseException) -> str:
    """Return the words of the first cause of ``error``; requests wraps it several times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.rstrip(".")
