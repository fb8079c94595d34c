"""The service behind nginx, as ``docker/tls.yml`` starts it: over TLS, for who has a password or a token."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from playwright.sync_api import Browser, expect

from tests.end_to_end.browser import drop, visit
from tests.end_to_end.conftest import Project
from tests.service.pictures import plain
from tests.service.running import free_ports
from tests.stack.service_image import built

pytestmark = pytest.mark.stack

PASSWORD = ("anna", "correct horse")
TOKEN = uuid.uuid4().hex + uuid.uuid4().hex
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PNG = {"Content-Type": "image/png"}
MAX_BODY = 100_000  # bytes
REQUESTS_PER_SECOND = 50


@dataclass(frozen=True)
class Front:
    """The proxy, its project, and the authority that its certificate comes from."""

    project: Project
    access: Path
    authority: trustme.CA
    authority_file: str
    http_port: int
    https_port: int

    @property
    def url(self) -> str:
        """Return its address over TLS."""
        return f"https://localhost:{self.https_port}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET over verified TLS; with a token unless told otherwise."""
        return self._request("GET", path, **{"headers": BEARER, **options})

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """POST over verified TLS; a PNG with a token unless told otherwise."""
        return self._request("POST", path, data=body, **{"headers": BEARER | PNG, **options})

    def status_of(self, target: str) -> int:
        """Return the status for a target that is sent letter for letter, with a token."""
        context = ssl.create_default_context(cafile=self.authority_file)
        connection = http.client.HTTPSConnection("localhost", self.https_port, context=context, timeout=30)
        try:
            connection.request("GET", target, headers=BEARER)
            return connection.getresponse().status
        finally:
            connection.close()

    def log(self, service: str) -> list[dict[str, Any]]:
        """Return the entries of the log of ``proxy`` or ``service``."""
        lines = self.project.compose("logs", "--no-log-prefix", "--no-color", service).splitlines()
        return [json.loads(line[line.index("{") :]) for line in lines if re.search(r'\{"time"', line)]

    def write_certificate(self) -> int:
        """Put a new certificate in place of the present one, as renewals do; return its serial number."""
        issued = self.authority.issue_cert("localhost")
        for name, content in (
            ("tls.crt", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
            ("tls.key", issued.private_key_pem.bytes()),
        ):
            new = self.access / f"{name}.new"
            new.write_bytes(content)
            new.rename(self.access / name)
        return _serial(issued.cert_chain_pems[0].bytes().decode())

    def served_serial(self) -> int:
        """Return the serial number of the certificate that a client is shown."""
        return _serial(ssl.get_server_certificate(("localhost", self.https_port)))

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, verify=self.authority_file, timeout=30, **options)


def _serial(certificate: str) -> int:
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=certificate, capture_output=True, text=True, check=True
    ).stdout
    return int(printed.strip().removeprefix("serial="), 16)


@pytest.fixture(scope="module")
def front(root: Path, docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Start service and proxy as the documentation says, with the bundled model; remove both afterwards."""
    access = tmp_path_factory.mktemp("access")
    access.chmod(0o755)
    authority = trustme.CA()
    authority_file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(authority_file))
    _write_passwords(access)
    http_port, https_port = free_ports(2)
    with built(root) as image:
        environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"darkroom-tls-{uuid.uuid4().hex[:8]}",
            "COMPOSE_FILE": "docker-compose.yml:docker-compose.override.yml:docker/tls.yml",
            "SERVICE_IMAGE": image,
            "MODELS_DIR": str(root / "models"),
            "ACCESS_DIR": str(access),
            "HTTP_PORT": str(http_port),
            "HTTPS_PORT": str(https_port),
            "ACCESS_LOG": "1",
            "DRAIN_SECONDS": "0",
            "MAX_BODY_BYTES": str(MAX_BODY),
            "REQUESTS_PER_SECOND": str(REQUESTS_PER_SECOND),
        }
        project = Project(root, environment["COMPOSE_PROJECT_NAME"], environment)
        front = Front(project, access, authority, str(authority_file), http_port, https_port)
        front.write_certificate()
        try:
            _start(project)
            yield front
        finally:
            project.compose("down", "--volumes", "--timeout", "5", check=False)


def _start(project: Project) -> None:
    """Start both; up to three times, since Docker 20.10 may forget a container's name when others start as well."""
    for _ in range(3):
        up = project.compose("up", "--detach", "--wait", "--no-build", check=False)
        if "proxy healthy" in project.compose("ps", "--format", "{{.Service}} {{.Health}}"):
            return
        log = project.compose("logs")
        if "there is no address of the service" not in log:
            break
        project.compose("down", "--timeout", "5")
    pytest.fail(up + log)


def _write_passwords(access: Path) -> None:
    """Write the files with passwords and tokens by the commands that docs/operations.md names."""
    name, password = PASSWORD
    hashed = subprocess.run(["openssl", "passwd", "-6", password], capture_output=True, text=True, check=True).stdout
    (access / "htpasswd").write_text(f"{name}:{hashed}", encoding="utf-8")
    (access / "tokens.conf").write_text(f'"Bearer {TOKEN}" "shop";\n', encoding="utf-8")


def test_who_has_a_password_or_a_token_is_answered(front: Front) -> None:
    """A prediction over verified TLS works with either, in all protocols, and only through the proxy."""
    for options in ({"headers": PNG, "auth": PASSWORD}, {"headers": BEARER | PNG}):
        answer = front.post("/predict", plain("red"), **options)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"]["name"] == "cifar10"
    for path in ("/", "/docs", "/openapi.json", "/model", "/v1/models/cifar10", "/v2/health/ready"):
        assert front.get(path).status_code == 200, path
    published = front.project.inspect(front.project.container())["NetworkSettings"]["Ports"]
    assert not any(published.values())
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(front.url, timeout=30)  # does not know the authority


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {}},
        {"headers": {}, "auth": ("anna", "wrong")},
        {"headers": {"Authorization": f"Bearer {TOKEN[:-1]}"}},
        {"headers": {"Authorization": f"Bearer {TOKEN}0"}},
        {"headers": {"Authorization": "Bearer "}},
    ],
    ids=["nothing", "wrong password", "part of a token", "more than a token", "empty token"],
)
def test_who_has_neither_is_not(front: Front, options: Any) -> None:
    """Without the right password or token every path is a 401 in JSON, and the service hears nothing of it."""
    for path in ("/", "/predict", "/v2/models/cifar10/infer", "/nothing"):
        answer = front.post(path, b"", **options)
        assert answer.status_code == 401
        assert answer.json()["error"] == "unauthorized"
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Darkroom"'
        assert answer.headers["X-Request-ID"] not in {entry.get("request_id") for entry in front.log("service")}


def test_metrics_and_probes_are_for_inside_only(front: Front) -> None:
    """However they are spelled, they are a 404 outside, also with a token; inside they answer."""
    for path in ("/metrics", "/health", "/health/live", "/health/ready"):
        tail = path.removeprefix("/")
        for target in (path, f"{path}?x=1", f"//{tail}", f"/./{tail}", f"/x/../{tail}", f"/%{ord(tail[0]):x}{tail[1:]}",
                       f"{path}/", f"/x/%2e%2e/{tail}", path.upper()):  # fmt: skip
            assert front.status_of(target) == 404, target
        code = f"import urllib.request; print(urllib.request.urlopen('http://service:8000{path}').status)"
        assert front.project.compose("exec", "-T", "service", "python", "-c", code).strip() == "200"


def test_the_largest_body_is_that_of_the_service(front: Front) -> None:
    """MAX_BODY_BYTES holds for the proxy too: what is larger, however it is sent, gets a 413 that names the limit."""
    too_large = bytes(MAX_BODY + 1)
    for body in (too_large, iter([too_large[:50_000], too_large[50_000:]])):
        answer = front.post("/predict", body)
        assert answer.status_code == 413
        assert answer.json()["error"] == "body_too_large"
        assert str(MAX_BODY) in answer.json()["message"]
    padded = plain("red") + bytes(MAX_BODY - len(plain("red")))
    assert front.post("/predict", padded).status_code == 200


def test_http_leads_to_https(front: Front) -> None:
    """Plain HTTP gets nothing but the way, on its own port and on that for TLS."""
    answer = requests.post(
        f"http://localhost:{front.http_port}/predict?top=1", plain("red"), allow_redirects=False, timeout=30
    )
    assert answer.status_code == 308  # the method stays
    assert answer.headers["Location"] == f"{front.url}/predict?top=1"
    assert requests.get(f"http://localhost:{front.https_port}/", timeout=30).json()["error"] == "bad_request"


def test_http_2_and_no_old_tls(front: Front) -> None:
    """Clients that can speak HTTP/2 do; TLS 1.1 is refused by the server."""
    command = ["curl", "--silent", "--show-error", "--cacert", front.authority_file, "--header"]
    command += [f"Authorization: Bearer {TOKEN}", "--output", os.devnull, "--write-out", "%{http_version} %{http_code}"]
    said = subprocess.run([*command, f"{front.url}/model"], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout == "2 200"

    def handshake(version: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=front.authority_file)
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would refuse
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("localhost", front.https_port), timeout=30) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as secured,
        ):
            return secured.version()

    assert handshake(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        handshake(ssl.TLSVersion.TLSv1_1)


def test_browsers_are_told_to_be_careful(front: Front) -> None:
    """Answers and errors carry the headers that bind a browser to HTTPS, once each, and do not name versions."""
    for answer in (front.get("/"), front.get("/nothing"), front.get("/", headers={})):
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Server"] == "nginx"
    assert "default-src 'none'" in front.get("/").headers["Content-Security-Policy"]


@pytest.mark.flaky(reruns=2)  # Chromium drops its requests whenever a container anywhere on the machine comes or goes
def test_the_page_works(front: Front, browser: Browser, tmp_path: Path) -> None:
    """With name and password the page loads over HTTPS, all its parts too, and classifies a picture."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(plain("red"))
    credentials = {"username": PASSWORD[0], "password": PASSWORD[1]}
    # Chromium does not know the test's authority; the other tests verify it.
    with visit(browser, front.url, http_credentials=credentials, ignore_https_errors=True) as page:
        drop(page, picture)
        expect(page.locator("#cards .answers li")).to_have_count(5)


def test_one_request_has_one_id_everywhere(front: Front) -> None:
    """The id that a client gave, or that the proxy made, is in the answer and in both logs, with who asked."""
    given = f"order-{uuid.uuid4().hex}"
    answers = [
        front.post("/predict", plain("red"), headers=BEARER | PNG | {"X-Request-ID": given}),
        front.post("/predict", plain("red"), headers=PNG, auth=PASSWORD),
    ]
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert ids[0] == given
    for request_id, user in zip(ids, ("shop", "anna"), strict=True):
        (outside,) = [entry for entry in front.log("proxy") if entry["request_id"] == request_id]
        (inside,) = [entry for entry in front.log("service") if entry.get("request_id") == request_id]
        assert (outside["user"], outside["status"], outside["path"]) == (user, "200", "/predict")
        assert (inside["status"], inside["path"]) == (200, "/predict")
    logs = front.project.compose("logs")
    assert TOKEN not in logs
    assert PASSWORD[1] not in logs


def test_the_proxy_has_no_privileges(front: Front) -> None:
    """It is no root, has no capability, and can write to /tmp only."""
    status = front.project.compose("exec", "-T", "proxy", "cat", "/proc/1/status")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert set(fields["Uid"].split()) == {"101"}
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert "Read-only file system" in front.project.compose(
        "exec", "-T", "proxy", "touch", "/etc/nginx/nginx.conf.new", check=False
    )


@pytest.mark.timing
def test_a_renewed_certificate_is_taken_without_a_restart(front: Front) -> None:
    """After a reload new connections get the new certificate; the proxy was never away."""
    before = front.served_serial()
    renewed = front.write_certificate()
    assert front.served_serial() == before
    front.project.compose("exec", "-T", "proxy", "nginx", "-s", "reload")
    _wait(lambda: front.served_serial() == renewed)
    assert front.get("/model").status_code == 200


@pytest.mark.timing
def test_a_service_that_is_gone_is_a_503_and_is_found_again(front: Front) -> None:
    """While there is no service the answer says so, in JSON and with Retry-After; when it is back it is asked again."""
    container = front.project.container()
    front.project.docker("kill", container)
    answer = front.get("/model")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["error"] == "unavailable"
    front.project.docker("start", container)
    _wait(lambda: front.get("/v2/health/ready").status_code == 200)
    assert front.post("/predict", plain("red")).status_code == 200


@pytest.mark.timing
def test_nobody_asks_faster_than_allowed(front: Front) -> None:
    """One address that asks faster than REQUESTS_PER_SECOND gets 429 in JSON with Retry-After for what is too much."""

    def ask(_: int) -> list[requests.Response]:
        with requests.Session() as session:
            url = f"{front.url}/v2/health/live"
            return [session.get(url, verify=front.authority_file, timeout=30) for _ in range(80)]

    started = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        answers = [answer for part in clients.map(ask, range(4)) for answer in part]
    seconds = time.monotonic() - started
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused, f"{len(answers)} requests in {seconds:.1f} s"
    assert {answer.status_code for answer in answers} == {401, 429}
    assert len(answers) - len(refused) <= 2 * REQUESTS_PER_SECOND + REQUESTS_PER_SECOND * seconds + 1
    assert refused[0].json()["error"] == "too_many_requests"
    assert refused[0].headers["Retry-After"] == "1"
    _wait(lambda: front.get("/model").status_code == 200)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true within 30 s"
        time.sleep(0.1)
