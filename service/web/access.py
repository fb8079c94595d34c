"""Who may ask: the names that may stand in ``Host``, tokens, rates of clients, and what each port is for."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from werkzeug.datastructures import Authorization, WWWAuthenticate
from werkzeug.exceptions import MisdirectedRequest, NotFound, TooManyRequests, Unauthorized

from service.captures.errors import Forbidden
from service.settings import Settings, Token, read_tokens

log = logging.getLogger(__name__)

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_NAME = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\s\[\]]+)(?::[0-9]*)?")  # of a Host, before its port
_IPV6_NETWORK = 64  # bits: what one client has of addresses at the least

_PROBES = (
    *("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
    *("/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"),
    "/grpc.health.v1.Health/Check",
)
_METRICS = ("/metrics",)
_OF_ADMIN = (*_METRICS, *(rule for rule in _PROBES if rule.startswith("/health")))  # moves to its port
_OPEN = {"probes": _PROBES, "metrics": _METRICS, "predictions": (), "nothing": ()}
# What these begin with shows people's pictures, or changes something.
_GUARDED = (
    *("/review", "/captured", "/v2/repository/models/"),
    *("/inference.GRPCInferenceService/RepositoryModel", "/tensorflow.serving.ModelService/HandleReloadConfigRequest"),
)
_CHANGING = ("PUT", "DELETE")

_SECONDS_BETWEEN_LOOKS = 1.0  # at the file of tokens


class Access:
    """Lets requests in or refuses them, by the settings alone."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the settings, and the clock in seconds by which the file of tokens is looked at."""
        self._hosts = Hosts(settings.host, settings.allowed_hosts)
        self._proxies = settings.trusted_proxies
        self._admin_port = None if settings.admin_port is None else str(settings.admin_port)
        self._open = frozenset(rule for what in settings.without_token for rule in _OPEN[what])
        self._predicts_openly = "predictions" in settings.without_token
        self._unlimited = frozenset((*_PROBES, *_METRICS))
        self._rates = Rates(settings.rate_limit) if settings.rate_limit else None
        has_tokens = settings.api_tokens is not None or settings.api_tokens_file is not None
        self._tokens = Tokens(settings.api_tokens or (), settings.api_tokens_file, clock) if has_tokens else None

    @property
    def refusals(self) -> list[HTTPStatus]:
        """The statuses that any request may get by the settings, beside what is wrong with itself."""
        limits = ((self._tokens, HTTPStatus.UNAUTHORIZED), (self._rates, HTTPStatus.TOO_MANY_REQUESTS))
        return [status for limit, status in limits if limit is not None]

    def check(self, environ: Mapping[str, Any], rule: str | None, *, preflight: bool = False) -> str | None:
        """Return whose token a request has that may be answered; None where none is asked for.

        ``environ`` is WSGI's, ``rule`` what the path matches, if anything. A ``preflight`` never has a token.

        Raises:
            Forbidden: it is for what always needs a token, and there is none, or a page of another origin sent it.
            MisdirectedRequest: it asks for a name that is not one of this service.
            NotFound: the route is not for this port.
            TooManyRequests: its client asks more often than is allowed.
            Unauthorized: it has no token, or none that is known.
        """
        if "HTTP_HOST" in environ and not self._hosts.include(environ["HTTP_HOST"]):
            raise MisdirectedRequest(
                "This service is not known by the name in Host; its setting ALLOWED_HOSTS lists its names."
            )
        if self._is_for_admin(environ, rule) or preflight:
            return None
        # Before the token is looked at, so that guessing is slow too.
        if self._rates is not None and rule not in self._unlimited:
            self._rates.check(self.client(environ))
        guarded = rule is not None and (rule.startswith(_GUARDED) or environ["REQUEST_METHOD"] in _CHANGING)
        if guarded:
            self._guard(environ)
        if self._tokens is None or (not guarded and self._is_open(rule)):
            return None
        return self._tokens.check(environ.get("HTTP_AUTHORIZATION"))

    def _is_open(self, rule: str | None) -> bool:
        """Say whether what is not guarded is answered without a token, where there are tokens."""
        return rule in self._open or (self._predicts_openly and rule not in (*_PROBES, *_METRICS))

    def _guard(self, environ: Mapping[str, Any]) -> None:
        """Refuse what nobody may do, and what a page of another origin makes a browser do with what that keeps.

        A link to a page is let through: nobody else reads what it shows.
        """
        if self._tokens is None:
            raise Forbidden("This needs a token, and the service has none: set API_TOKENS or API_TOKENS_FILE.")
        follows_link = environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none") and not follows_link:
            raise Forbidden("A page of another origin may not ask for this.")

    def client(self, environ: Mapping[str, Any]) -> str | None:
        """Return the address of the client, who may be behind proxies that are trusted to tell it."""
        address: str | None = environ.get("REMOTE_ADDR")
        if not self._proxies:
            return address
        told = [part.strip() for part in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        told_by_proxy = told[-self._proxies] if len(told) >= self._proxies else ""
        return told_by_proxy if _address(told_by_proxy) else address

    def _is_for_admin(self, environ: Mapping[str, Any], rule: str | None) -> bool:
        """Say whether a request came to the port of its own that health and metrics have.

        Raises:
            NotFound: it came to the other one.
        """
        if self._admin_port is None:
            return False
        admin = environ.get("SERVER_PORT") == self._admin_port
        if admin != (rule in _OF_ADMIN):
            raise NotFound
        return admin


class Hosts:
    """The names that may stand in ``Host``.

    A page from anywhere can make its own name lead to this service (DNS rebinding), and then ask it as its own origin;
    but the browser still says that name. No such page can be at an address, or at a name without a dot.
    """

    def __init__(self, host: str, allowed: tuple[str, ...] | None) -> None:
        """Take the address that the service listens on, and the names that are set, if any."""
        self._local = _is_loopback(host)
        self._allowed = allowed
        self._names = frozenset((*_LOCAL_NAMES, host.lower(), f"[{host.lower()}]", *(allowed or ())))
        self._suffixes = tuple(name[1:] for name in self._names if name.startswith("*."))
        self.include = functools.lru_cache(maxsize=256)(self._include)
        """Says whether what stands in a request's ``Host`` is one of them."""

    def _include(self, asked: str) -> bool:
        if "*" in self._names:
            return True
        found = _NAME.fullmatch(asked.lower())
        if found is None:
            return False
        name = found[1].rstrip(".")
        if name in self._names or name.endswith((".localhost", *self._suffixes)):
            return True
        return not self._local and (_address(name) is not None or (self._allowed is None and "." not in name))


class Tokens:
    """The tokens that are known: those that are set, and those of a file, which may change."""

    def __init__(self, fixed: tuple[Token, ...], file: Path | None, clock: Callable[[], float]) -> None:
        """Take the tokens, the file, and the clock by which it is looked at."""
        self._fixed = fixed
        self._file = file
        self._clock = clock
        self._look_again = -math.inf
        self._seen: tuple[int, int, int] | None = None
        self._of_file: tuple[Token, ...] = ()

    def check(self, authorization: str | None) -> str:
        """Return whose token the header holds: as a bearer's, or as a password, for browsers.

        Raises:
            Unauthorized: it holds none that is known.
        """
        sent = Authorization.from_header(authorization)
        token = sent and {"bearer": sent.token, "basic": sent.password}.get(sent.type)
        name = self._name_of(token) if token else None
        if name is None:
            ways = [WWWAuthenticate(way, {"realm": "Darkroom", "charset": "UTF-8"}) for way in ("bearer", "basic")]
            raise Unauthorized(
                "Send a token that is known here, as Authorization: Bearer TOKEN.", www_authenticate=ways
            )
        return name

    def _name_of(self, token: str) -> str | None:
        """Return whose ``token`` it is, in a time that does not tell how near it is to one."""
        digest, name = hashlib.sha256(token.encode(errors="surrogateescape")).digest(), None
        for known in (*self._fixed, *self._read()):
            if hmac.compare_digest(known.sha256, digest):
                name = known.name
        return name

    def _read(self) -> tuple[Token, ...]:
        """Return the tokens of the file; those of before where it cannot be read now."""
        if self._file is None or self._clock() < self._look_again:
            return self._of_file
        self._look_again = self._clock() + _SECONDS_BETWEEN_LOOKS
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._of_file, self._seen = read_tokens(self._file), seen
        except (OSError, ValueError) as error:
            log.error("API_TOKENS_FILE cannot be read, so the tokens stay as they were: %s", error)
        return self._of_file


class Rates:
    """How often each client may ask, in this worker."""

    def __init__(self, rates: tuple[str, ...]) -> None:
        """Take the limits, such as 20/second."""
        import limits

        self._limits = [limits.parse(rate) for rate in rates]
        self._limiter = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.MemoryStorage())

    def check(self, client: str | None) -> None:
        """Count a request of the ``client`` at this address.

        Raises:
            TooManyRequests: it asked as often as is allowed already.
        """
        key = _network(client)
        for limit in self._limits:
            if not self._limiter.hit(limit, key):
                reset = self._limiter.get_window_stats(limit, key).reset_time
                seconds = max(1, math.ceil(reset - time.time()))
                raise TooManyRequests(
                    f"You ask more often than the {limit} that is allowed; try again later.", retry_after=seconds
                )


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that ``text`` is, in brackets or not; None where it is none."""
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _network(client: str | None) -> str:
    """Return what stands for a client at an address: of IPv6 the network, since each has millions of addresses."""
    address = _address(client or "")
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
    return client or ""
