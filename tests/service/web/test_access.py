"""Who may ask: hosts, tokens, rates, origins, ports; in this process, by Flask and by the short way."""

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.exceptions import TooManyRequests, Unauthorized

from service.app import DIALECTS, create_app
from service.serving import plain_requests
from service.serving.gateway import Room
from service.serving.load_shedding import LoadShedder
from service.serving.loop import Loop
from service.serving.short_requests import ShortRequests
from service.settings import Settings, SettingsError, Token, parse_tokens
from service.web.access import Access, Hosts, Rates, Tokens
from service.web.headers import EVERY_ANSWER
from service.web.services import Services
from tests.service.answers import parsed
from tests.service.conftest import MakeServices
from tests.service.loops import on_a_loop
from tests.service.pictures import plain

Ask = Callable[..., tuple[int, Any]]

RED = plain("red")
SHOP, ANNA = "token-of-the-shop", "token-of-anna"
ORIGIN = "https://app.example.com"


def known(name: str, token: str) -> Token:
    """Return a token as the settings have it."""
    return Token(name, hashlib.sha256(token.encode()).digest())


def line(name: str, token: str) -> str:
    """Return a token as it is written in the settings."""
    return f"{name}:{hashlib.sha256(token.encode()).hexdigest()}"


def bearer(token: str) -> dict[str, str]:
    """Return the header of a program that has ``token``."""
    return {"Authorization": f"Bearer {token}"}


def basic(password: str) -> dict[str, str]:
    """Return the header of a browser that was told ``password``."""
    return {"Authorization": f"Basic {base64.b64encode(f'anybody:{password}'.encode()).decode()}"}


@pytest.fixture(params=["flask", "short"])
def ask_of(request: pytest.FixtureRequest, services_of: MakeServices, models: Path) -> Callable[..., Ask]:
    """Makes what asks an application with the settings given for a prediction, in one of the two ways."""

    def make(**settings: Any) -> Ask:
        services = services_of(model_dir=models, **settings)
        app = create_app(services)
        return _by_flask(app.test_client()) if request.param == "flask" else _short(app, services)

    return make


def _by_flask(client: FlaskClient) -> Ask:
    def ask(address: str = "192.0.2.1", **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = client.post(
            "/predict", data=RED, content_type="image/png", headers=named, environ_base={"REMOTE_ADDR": address}
        )
        return response.status_code, response.headers

    return ask


def _short(app: Any, services: Services) -> Ask:
    def ask(address: str = "192.0.2.1", **headers: str) -> tuple[int, Any]:
        lines = {"Host": "localhost", "Content-Type": "image/png", "Content-Length": str(len(RED)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        plain_request = plain_requests.read(f"POST /predict HTTP/1.1\r\n{head}\r\n".encode() + RED)
        assert plain_request is not None

        def work(loop: Loop) -> bytes | None:
            short = ShortRequests(app, DIALECTS, services, loop, Room(10_000_000))
            assert short.takes(plain_request)
            return short.answer(plain_request, address)

        answer = on_a_loop(work)
        assert answer is not None
        response, _ = parsed(answer)
        return response.status, response.headers

    return ask


@pytest.mark.parametrize(
    ("host", "allowed", "asked", "included"),
    [
        ("127.0.0.1", None, "localhost", True),
        ("127.0.0.1", None, "LOCALHOST:8000", True),
        ("127.0.0.1", None, "darkroom.localhost:8000", True),
        ("127.0.0.1", None, "127.0.0.1:8000", True),
        ("::1", None, "[::1]:8000", True),
        ("127.0.0.2", None, "127.0.0.2:8000", True),
        ("127.0.0.1", None, "evil.example", False),
        ("127.0.0.1", None, "evil", False),
        ("127.0.0.1", None, "localhost.evil.example", False),
        ("127.0.0.1", None, "192.0.2.1", False),
        ("127.0.0.1", None, "localhost@evil.example", False),
        ("127.0.0.1", None, "", False),
        ("127.0.0.1", None, "localhost,evil.example", False),
        ("127.0.0.1", ("pictures.example.com",), "pictures.example.com", True),
        ("127.0.0.1", ("pictures.example.com",), "pictures.example.com.:443", True),
        ("127.0.0.1", ("pictures.example.com",), "localhost:8000", True),
        ("127.0.0.1", ("pictures.example.com",), "other.example.com", False),
        ("127.0.0.1", ("*.example.com",), "a.b.example.com", True),
        ("127.0.0.1", ("*.example.com",), "example.com", False),
        ("127.0.0.1", ("*.example.com",), "evilexample.com", False),
        ("127.0.0.1", ("*",), "evil.example", True),
        ("0.0.0.0", None, "10.1.2.3:8000", True),  # noqa: S104 - a probe of a pod
        ("0.0.0.0", None, "[fd00::1]:8000", True),  # noqa: S104
        ("0.0.0.0", None, "tasks:8000", True),  # noqa: S104
        ("0.0.0.0", None, "evil.example", False),  # noqa: S104
        ("0.0.0.0", ("pictures.example.com",), "10.1.2.3:8000", True),  # noqa: S104
        ("0.0.0.0", ("pictures.example.com",), "tasks", False),  # noqa: S104
        ("::", None, "10.1.2.3", True),
    ],
)
def test_hosts(host: str, allowed: tuple[str, ...] | None, asked: str, *, included: bool) -> None:
    """A name that a stranger's page could have is refused, unless it is set; addresses of probes never are."""
    assert Hosts(host, allowed).include(asked) is included


def test_another_host_is_misdirected(ask_of: Callable[..., Ask]) -> None:
    """A page whose name was made to lead here gets nothing but what it is told to do; other settings let it in."""
    assert ask_of()(Host="evil.example")[0] == 421
    assert ask_of()(Host="localhost:1")[0] == 200
    assert ask_of(allowed_hosts=("pictures.example.com",))(Host="pictures.example.com")[0] == 200


def test_a_refused_host_is_told_in_the_protocols_form(client: FlaskClient) -> None:
    """The message names the setting, also to the clients of other protocols."""
    for path, key in (("/health", "message"), ("/nothing", "message"), ("/v2", "error"), ("/v1/models/a", "error")):
        response = client.get(path, headers={"Host": "evil.example"})
        assert response.status_code == 421
        assert "ALLOWED_HOSTS" in response.json[key]  # type: ignore[index]


def test_tokens_let_in(ask_of: Callable[..., Ask]) -> None:
    """Where there are tokens, each of them lets in, as a bearer's or as a password, and nothing else does."""
    ask = ask_of(api_tokens=(known("shop", SHOP), known("anna", ANNA)))
    for headers in (bearer(SHOP), bearer(ANNA), basic(ANNA)):
        assert ask(**headers)[0] == 200
    wrong: list[dict[str, str]] = [
        {},
        bearer(""),
        bearer("wrong"),
        bearer(SHOP[:-1]),
        bearer(f"{SHOP} {SHOP}"),
        bearer(hashlib.sha256(SHOP.encode()).hexdigest()),
        basic("wrong"),
        {"Authorization": "Basic %%%"},
        {"Authorization": SHOP},
        {"Authorization": f"Digest {SHOP}"},
    ]
    for headers in wrong:
        status, answered = ask(**headers)
        assert status == 401, headers
        assert "Bearer" in answered["WWW-Authenticate"] or "Basic" in answered["WWW-Authenticate"]


def test_both_ways_to_send_a_token_are_told(services_of: MakeServices, models: Path) -> None:
    """Programs are asked for a bearer's token, browsers for a password, and what is asked has the protocol's form."""
    client = create_app(services_of(model_dir=models, api_tokens=(known("shop", SHOP),))).test_client()
    response = client.get("/v2")
    assert response.status_code == 401
    ways = " ".join(response.headers.getlist("WWW-Authenticate"))
    assert "Bearer" in ways
    assert "Basic" in ways
    assert "Authorization: Bearer" in response.json["error"]  # type: ignore[index]
    assert client.get("/nothing").status_code == 401
    assert client.get("/nothing", headers=bearer(SHOP)).status_code == 404
    assert client.get("/", headers=basic(SHOP)).status_code == 200


@pytest.mark.parametrize(
    ("without", "open_paths"),
    [
        (("probes",), {"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}),
        (("metrics",), {"/metrics"}),
        (("nothing",), set()),
        (("predictions",), {"/", "/docs", "/openapi.json", "/model", "/v1/models/colours"}),
        (("predictions", "metrics"), {"/", "/docs", "/openapi.json", "/model", "/v1/models/colours", "/metrics"}),
    ],
)
def test_what_needs_no_token_is_chosen(
    services_of: MakeServices, models: Path, without: tuple[str, ...], open_paths: set[str]
) -> None:
    """Probes are answered without a token unless it is set otherwise; metrics, the model and the pages are not."""
    services = services_of(model_dir=models, api_tokens=(known("shop", SHOP),), without_token=without)
    client = create_app(services).test_client()
    paths = {"/", "/docs", "/openapi.json", "/model", "/metrics", "/health", "/health/live", "/health/ready"}
    paths |= {"/v2/health/live", "/v2/health/ready", "/v1/models/colours"}
    assert {path for path in paths if client.get(path).status_code != 401} == open_paths


def test_the_log_says_whose_token_it_was(
    services_of: MakeServices, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The access log has the name of the token, and never the token."""
    services = services_of(model_dir=models, access_log=True, api_tokens=(known("shop", SHOP),))
    with caplog.at_level("INFO", "service.access"):
        create_app(services).test_client().get("/model", headers=bearer(SHOP))
    assert [record.fields["user"] for record in caplog.records] == ["shop"]  # type: ignore[attr-defined]
    assert SHOP not in caplog.text + str([vars(record) for record in caplog.records])


def test_tokens_are_rotated_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Within a second the file's new tokens count and its old ones do not; while it cannot be read, they stay."""
    now = [0.0]
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\n{line('shop', SHOP)}  # until May\n\n")
    tokens = Tokens((known("fixed", "fixed"),), file, lambda: now[0])

    def lets_in(token: str) -> bool:
        try:
            return bool(tokens.check(f"Bearer {token}"))
        except Unauthorized:
            return False

    def let_in() -> list[bool]:
        now[0] += 1.1
        return [lets_in(token) for token in ("fixed", SHOP, ANNA)]

    assert let_in() == [True, True, False]
    replace(file, line("anna", ANNA))
    assert not lets_in(ANNA), "it is not looked at at each request"
    assert let_in() == [True, False, True]
    file.unlink()
    assert let_in() == [True, False, True]
    assert "API_TOKENS_FILE cannot be read" in caplog.text
    replace(file, f"{line('shop', SHOP)}\n{ANNA}\n")
    assert let_in() == [True, False, True]
    replace(file, "")
    assert let_in() == [True, False, False]


def replace(file: Path, text: str) -> None:
    """Put another file in the place of ``file``."""
    other = file.with_name("other")
    other.write_text(text)
    other.rename(file)


@pytest.mark.parametrize("text", ["shop", f"shop:{SHOP}", "shop:" + "0" * 63, "sh op:" + "0" * 64, ":" + "0" * 64])
def test_what_is_no_hash_of_a_token_is_refused(text: str) -> None:
    """A token that somebody wrote as it is ends the start, and is not repeated on the screen."""
    with pytest.raises(SettingsError, match="API_TOKENS is set, but it must be NAME:SHA256") as raised:
        Settings.from_environment({"API_TOKENS": text})
    assert SHOP not in str(raised.value)


def test_several_tokens_in_one_variable() -> None:
    """They stand apart by spaces, commas or lines."""
    text = f"{line('a', SHOP)}, {line('b', ANNA)}\n{line('c', 'c').upper().replace('C:', 'c:')}"
    assert [token.name for token in parse_tokens(text)] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "binary", "no-tokens", "huge"])
def test_a_file_that_holds_no_tokens_ends_the_start(tmp_path: Path, kind: str) -> None:
    """The error names the setting; a pipe is not waited for."""
    file = tmp_path / "tokens"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "missing":
        file.write_bytes({"binary": b"\xff\xfe", "no-tokens": b"shop\n", "huge": b"#" * 2_000_000}[kind])
    with pytest.raises(SettingsError, match=r"API_TOKENS_FILE is .*tokens', but "):
        Settings.from_environment({"API_TOKENS_FILE": str(file)})


def test_who_asks_too_often_waits(ask_of: Callable[..., Ask]) -> None:
    """Beyond the limit a client gets a 429 that says when to come again, and others do not."""
    ask = ask_of(rate_limit=("2/hour",))
    assert [ask()[0] for _ in range(3)] == [200, 200, 429]
    assert 1 <= int(ask()[1]["Retry-After"]) <= 3600
    assert ask(address="192.0.2.2")[0] == 200


def test_of_several_limits_each_counts(ask_of: Callable[..., Ask]) -> None:
    """The strictest one refuses."""
    ask = ask_of(rate_limit=("100/second", "1/day"))
    assert [ask()[0] for _ in range(2)] == [200, 429]


def test_guessing_tokens_is_limited_too(ask_of: Callable[..., Ask]) -> None:
    """A wrong token counts as any request does."""
    ask = ask_of(rate_limit=("2/hour",), api_tokens=(known("shop", SHOP),))
    assert [ask(**bearer("guess"))[0] for _ in range(3)] == [401, 401, 429]


def test_probes_and_metrics_are_not_limited(services_of: MakeServices, models: Path) -> None:
    """Who watches asks all the time."""
    client = create_app(services_of(model_dir=models, rate_limit=("1/day",))).test_client()
    for path in ("/health/live", "/health/ready", "/metrics", "/v2/health/ready"):
        assert [client.get(path).status_code for _ in range(3)] == [200] * 3
    assert [client.get("/model").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_a_client_is_an_address_or_a_network(first: str, second: str, *, same: bool) -> None:
    """Of IPv6 the network of 64 bits counts, since whoever has one address has all of it."""
    rates = Rates(("1/day",))
    rates.check(first)
    if same:
        with pytest.raises(TooManyRequests):
            rates.check(second)
    else:
        rates.check(second)


@pytest.mark.parametrize(
    ("proxies", "told", "client"),
    [
        (0, "203.0.113.7", "192.0.2.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "9.9.9.9, 203.0.113.7", "203.0.113.7"),
        (2, "9.9.9.9, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (2, "203.0.113.7", "192.0.2.1"),
        (1, "nonsense", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "2001:db8::1", "2001:db8::1"),
    ],
)
def test_who_the_client_is_behind_proxies(proxies: int, told: str, client: str) -> None:
    """Only what trusted proxies have added counts; what a client has written before that does not."""
    access = Access(Settings(trusted_proxies=proxies))
    assert access.client({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": told}) == client


def test_another_origin_is_not_let_in_by_default(ask_of: Callable[..., Ask]) -> None:
    """Without the setting no answer says that a page of another origin may read it."""
    status, headers = ask_of()(Origin=ORIGIN)
    assert status == 200
    assert not [name for name in headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_origins_that_are_set_may_read(ask_of: Callable[..., Ask]) -> None:
    """An allowed origin is named, caches are told, and passwords that the browser keeps are never asked for."""
    ask = ask_of(cors_origins=(ORIGIN, "http://localhost:3000"))
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://evil.example", None), ("null", None), (f"{ORIGIN}.evil", None)):
        status, headers = ask(Origin=origin)
        assert status == 200
        assert headers.get("Access-Control-Allow-Origin") == allowed
        assert "Origin" in headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in headers
    status, headers = ask()
    assert "Access-Control-Allow-Origin" not in headers
    assert "Origin" in headers["Vary"]


def test_every_origin_may_be_let_in(ask_of: Callable[..., Ask]) -> None:
    """The star is answered as a star, without credentials, also to errors, which scripts should be able to read."""
    ask = ask_of(cors_origins=("*",), api_tokens=(known("shop", SHOP),))
    for headers, expected in ((bearer(SHOP), 200), ({}, 401)):
        status, answered = ask(Origin=ORIGIN, **headers)
        assert status == expected
        assert answered["Access-Control-Allow-Origin"] == "*"
        assert "X-Request-ID" in answered["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answered


def test_preflights_are_answered_without_a_token(services_of: MakeServices, models: Path) -> None:
    """A browser asks without a token what it may send: for allowed origins it is told, for others it is not."""
    services = services_of(model_dir=models, cors_origins=(ORIGIN,), api_tokens=(known("shop", SHOP),))
    client = create_app(services).test_client()
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for path in ("/predict", "/v2/models/colours/infer", "/v1/models/colours:predict"):
        response = client.options(path, headers={"Origin": ORIGIN, **asked})
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in ("authorization", "content-type", "x-darkroom-sticky"))
        assert response.headers["Access-Control-Max-Age"]
    refused = client.options("/predict", headers={"Origin": "https://evil.example", **asked})
    assert refused.status_code == 401
    assert not [name for name in refused.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_a_preflight_is_nothing_where_no_origin_is_set(client: FlaskClient) -> None:
    """Without the setting it is an ordinary OPTIONS."""
    response = client.options("/predict", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert "POST" in response.headers["Allow"]
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_a_page_can_read_that_there_is_too_much(services_of: MakeServices, models: Path) -> None:
    """A refusal under overload, which no parser has seen, also says whose pages may read it."""
    services = services_of(model_dir=models, cors_origins=(ORIGIN,))
    shedder = LoadShedder(create_app(services), DIALECTS, services.notes, services.origins)

    def refused(origin: str) -> Any:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
        request = plain_requests.read(head.encode())
        answer = shedder.answer(request) if request else None
        assert answer is not None
        return parsed(answer)[0].headers

    assert refused(ORIGIN)["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Origin" not in refused("https://evil.example")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/model"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/v2"),
        ("GET", "/v1/models/colours"),
        ("GET", "/nothing"),
        ("DELETE", "/predict"),
        ("POST", "/predict"),
        ("OPTIONS", "/predict"),
    ],
)
def test_every_answer_has_the_headers_that_bind_a_browser(client: FlaskClient, method: str, path: str) -> None:
    """Nothing is sniffed, kept, framed or run, whether it is an answer or an error."""
    headers = client.open(path, method=method).headers
    assert {name: headers[name] for name in EVERY_ANSWER} == EVERY_ANSWER
    assert EVERY_ANSWER["X-Content-Type-Options"] == "nosniff"
    assert EVERY_ANSWER["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in EVERY_ANSWER["Content-Security-Policy"]


def test_the_description_says_who_may_ask(services_of: MakeServices, models: Path) -> None:
    """With tokens and limits every route may answer 401 and 429, and Swagger UI asks for a token; else none does."""
    services = services_of(model_dir=models, rate_limit=("100/second",), api_tokens=(known("shop", SHOP),))
    asked = create_app(services).test_client().get("/openapi.json", headers=bearer(SHOP)).json
    assert asked is not None
    assert asked["security"] == [{"token": []}]
    for operations in asked["paths"].values():
        for operation in operations.values():
            assert {"401", "429"} <= set(operation["responses"])
    open_to_all = create_app(services_of(model_dir=models)).test_client().get("/openapi.json").json
    assert open_to_all is not None
    assert "security" not in open_to_all
    assert "401" not in open_to_all["paths"]["/model"]["get"]["responses"]


def test_health_and_metrics_on_a_port_of_their_own(services_of: MakeServices, models: Path) -> None:
    """There they need no token and nothing else is answered; the first port has them no longer."""
    services = services_of(model_dir=models, admin_port=9000, api_tokens=(known("shop", SHOP),))
    client = create_app(services).test_client()

    def status(path: str, port: str, **headers: str) -> int:
        return client.get(path, environ_overrides={"SERVER_PORT": port}, headers=headers).status_code

    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        assert (status(path, "9000"), status(path, "8000", **bearer(SHOP))) == (200, 404)
    for path in ("/model", "/", "/v2", "/v2/health/ready"):
        assert (status(path, "9000", **bearer(SHOP)), status(path, "8000", **bearer(SHOP))) == (404, 200)
