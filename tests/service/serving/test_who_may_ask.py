"""Who may ask the service as people run it: hosts, tokens, ports, and what its answers tell of it."""

import hashlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from service.web.headers import EVERY_ANSWER
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import ROOT, RunningService, free_ports, wait_for

pytestmark = [pytest.mark.process]

RED = plain("red")


def line(token: str) -> str:
    """Return a token as its file has it."""
    return f"somebody:{hashlib.sha256(token.encode()).hexdigest()}\n"


def ask(service: RunningService, token: str = "", **headers: str) -> requests.Response:
    """Ask for a prediction, which needs no parser, with ``token``."""
    sent = {"Content-Type": "image/png", **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    return requests.post(f"{service.url}/predict", data=RED, headers=sent, timeout=30)


def raw(service: RunningService, request: bytes) -> bytes:
    """Return all that the service answers to ``request`` until it closes the connection."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_another_host_is_refused(shared_service: StartService) -> None:
    """A name that a page from elsewhere made lead here is a 421, with a parser and without; no name at all is none."""
    service = shared_service()
    for response in (
        ask(service, Host="evil.example"),
        requests.get(f"{service.url}/model", headers={"Host": "evil.example"}, timeout=30),
    ):
        assert response.status_code == 421
        assert "ALLOWED_HOSTS" in response.json()["message"]
    assert ask(service, Host="localhost").status_code == 200
    assert b" 200 OK\r\n" in raw(service, b"GET /health/ready HTTP/1.0\r\n\r\n")


def test_no_answer_tells_what_serves(shared_service: StartService) -> None:
    """Neither a page, an answer without a parser, an error, nor a refusal names a server or a version of one."""
    service = shared_service()
    heads = [
        raw(service, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        raw(service, b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        raw(service, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        raw(service, b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"),
        raw(service, b"nonsense\r\n\r\n"),
    ]
    for answer in heads:
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 ")
        assert b"\r\nserver:" not in head
        assert b"gunicorn" not in head
        assert b"\r\nx-content-type-options: nosniff" in head
    assert "Server" not in ask(service).headers


def test_an_answer_without_a_parser_binds_browsers_too(shared_service: StartService) -> None:
    """The headers of every answer are those of Flask's."""
    headers = ask(shared_service()).headers
    assert {name: headers[name] for name in EVERY_ANSWER} == EVERY_ANSWER


def test_tokens_change_while_it_runs(start_service: StartService, tmp_path: Path) -> None:
    """With a new file the new token lets in and the old one does not, and no request in between is lost."""
    file = tmp_path / "tokens"
    file.write_text(line("old"))
    service = start_service(API_TOKENS_FILE=str(file))
    assert service.status("/metrics") == 401
    assert (ask(service).status_code, ask(service, "old").status_code, ask(service, "new").status_code) == (
        401,
        200,
        401,
    )
    file.with_name("next").write_text(line("new"))
    file.with_name("next").rename(file)
    wait_for(lambda: ask(service, "new").status_code == 200, service.log)
    assert ask(service, "old").status_code == 401
    assert "old" not in service.log()


def test_health_and_metrics_have_a_port_of_their_own(start_service: StartService) -> None:
    """There probes and Prometheus need no token, and pictures are not taken, however plainly they are sent."""
    port, admin = free_ports(2)
    service = start_service(ready=False, PORT=str(port), ADMIN_PORT=str(admin), API_TOKENS=line("token"))
    inside = RunningService(service.process, f"http://127.0.0.1:{admin}", service.stderr)
    outside = RunningService(service.process, f"http://127.0.0.1:{port}", service.stderr)
    inside.wait_until_ready()
    assert "darkroom_requests_total" in inside.get("/metrics").text
    check = [sys.executable, str(ROOT / "docker" / "healthcheck.py")]
    ports = {"PORT": str(port), "ADMIN_PORT": str(admin)}
    assert subprocess.run(check, env=ports, check=False).returncode == 0
    assert ask(inside, "token").status_code == 404
    assert ask(outside, "token").status_code == 200
    for path in ("/metrics", "/health", "/health/ready"):
        headers = {"Authorization": "Bearer token"}
        assert requests.get(outside.url + path, headers=headers, timeout=30).status_code == 404
    assert service.terminate() == 0


@pytest.mark.slow
def test_both_ports_drain(start_service: StartService) -> None:
    """While the service stops, its port for probes says so until the end."""
    port, admin = free_ports(2)
    service = start_service(ready=False, PORT=str(port), ADMIN_PORT=str(admin), DRAIN_SECONDS="1")
    inside = RunningService(service.process, f"http://127.0.0.1:{admin}", service.stderr)
    inside.wait_until_ready()
    service.process.terminate()
    wait_for(lambda: inside.status("/health/ready") == 503, service.log)
    assert service.process.wait(30) == 0


@pytest.mark.slow
def test_rates_are_kept_without_a_parser(start_service: StartService) -> None:
    """A client that asks more often gets a 429 that says when to come again; the limit passes."""
    service = start_service(RATE_LIMIT="3/second")
    statuses = [ask(service).status_code for _ in range(8)]
    assert 429 in statuses
    assert statuses[0] == 200
    time.sleep(2)
    assert ask(service).status_code == 200
    assert service.status("/health/ready") == 200
