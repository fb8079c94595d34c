"""The pods of the manifests, run for real: the image under exactly what a cluster would hold it to."""

import io
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from service.settings import Settings
from tests.kubernetes.manifests import Pod, pods, variables
from tests.service.pictures import plain
from tests.service.running import wait_for
from tests.stack.load import Load
from tests.stack.pods import Container, docker, running
from tests.stack.service_image import built

pytestmark = pytest.mark.stack

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture(scope="module")
def image(root: Path, docker_engine: None) -> Iterator[str]:
    """Return the tag of the service's image."""
    with built(root) as tag:
        yield tag


@pytest.fixture
def models() -> Iterator[str]:
    """Return an empty volume that belongs to the pods' group, as a cluster's does by fsGroup."""
    volume = docker("volume", "create").strip()
    try:
        yield volume
    finally:
        docker("volume", "rm", "--force", volume)


def predict(url: str) -> requests.Response:
    """Classify one picture."""
    content = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(content, "PNG")
    return requests.post(f"{url}/predict", content.getvalue(), headers={"Content-Type": "image/png"}, timeout=30)


def pod_of(overlay: str) -> Pod:
    """Return the one pod of an overlay."""
    (pod,) = pods(overlay)
    return pod


@pytest.mark.timing
@pytest.mark.parametrize("overlay", ["minimal", "kserve"])
def test_the_service_runs_as_the_manifests_say_and_drains(image: str, tmp_path: Path, overlay: str) -> None:
    """Under the pod's user, limits and read-only root all probes pass and pictures are classified.

    After SIGTERM readiness is withdrawn while what still arrives is answered; then it ends by itself in its grace time.
    """
    pod = pod_of(overlay)
    with running(pod, image, {}, tmp_path) as container:
        for probe in PROBES:
            container.await_probe(probe)
        url = container.url()
        answer = predict(url)
        assert answer.status_code == 200, answer.text
        _assert_confined(container, pod)
        _assert_it_drains(container, pod, url)


def _assert_confined(container: Container, pod: Pod) -> None:
    """The kernel holds the process to what the manifest says."""
    status = docker("exec", container.name, "cat", "/proc/1/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert set(fields["Uid"].split()) == {str(pod.spec["securityContext"]["runAsUser"])}
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"  # Docker's filter, which RuntimeDefault is as well
    assert container.inspect()["HostConfig"]["ReadonlyRootfs"] is True


def _assert_it_drains(container: Container, pod: Pod, url: str) -> None:
    drain = Settings.from_environment(variables(pod)).drain_seconds
    docker("kill", "--signal", "TERM", container.name)
    started = time.monotonic()
    statuses = []
    while time.monotonic() - started < drain - 3:  # endpoints are being withdrawn; requests still come
        statuses.append(predict(url).status_code)
        assert container.probe("livenessProbe") == 200
        time.sleep(0.1)
    assert len(statuses) > 10
    assert set(statuses) == {200}
    assert container.probe("readinessProbe") == 503
    grace = pod.spec["terminationGracePeriodSeconds"]
    code = docker("wait", container.name, timeout=grace - (time.monotonic() - started))
    assert time.monotonic() - started >= drain - 0.5
    assert code.strip() == "0", container.log()


def test_the_seed_fills_the_volume_that_production_serves(image: str, models: str, tmp_path: Path) -> None:
    """The Job copies the bundled versions, twice to no harm, and production's pod serves them from the volume."""
    _give_to_the_pods(models, image)
    volumes = {"darkroom-models": models}
    for said in ("cifar10/5 is copied", "cifar10/5 is there already"):
        folder = tmp_path / said.replace("/", " ")
        folder.mkdir()
        with running(pod_of("seed"), image, volumes, folder) as container:
            assert docker("wait", container.name).strip() == "0", container.log()
            assert said in container.log()
    with running(pod_of("production"), image, volumes, tmp_path) as container:
        for probe in PROBES:
            container.await_probe(probe)
        assert predict(container.url()).json()["model"] == {"name": "cifar10", "version": 5}
        mounts = {mount["Destination"]: mount["RW"] for mount in container.inspect()["Mounts"]}
        assert mounts["/models"] is False
        docker("stop", "--time", "0", container.name)


def test_a_canary_is_set_while_production_serves(image: str, models: str, tmp_path: Path) -> None:
    """The Job refuses a version that is not there; once it is, pods share the requests as it says, and lose none."""
    _give_to_the_pods(models, image)
    volumes = {"darkroom-models": models}

    def run(overlay: str) -> tuple[str, str]:
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        with running(pod_of(overlay), image, volumes, folder) as container:
            return docker("wait", container.name).strip(), container.log()

    assert run("seed")[0] == "0"
    with running(pod_of("production"), image, volumes, tmp_path) as container:
        container.await_probe("readinessProbe")
        with Load(container.url(), plain("teal"), rate=50, clients=8) as load:
            code, log = run("canary")
            assert code == "1", log
            assert "cifar10.json names version 6, which cifar10 does not have" in log
            docker("run", "--rm", f"--volume={models}:/volume", "--entrypoint=sh", image,
                   "-c", "cd /volume/cifar10 && cp -R 5 .6 && mv .6 6")  # fmt: skip
            code, log = run("canary")
            assert (code, log.strip()) == ("0", "serving.json of cifar10 is set")
            wait_for(lambda: shares(container.url()) == {5: 0.9, 6: 0.1}, container.log)
            settled = len(load.answers) + 20
            load.wait_for_answers(220)
        assert load.lost == [], load.report()
        last = [answer.version for answer in load.answers[settled:]]
        assert set(last) == {5, 6}
        assert last.count(6) <= 50
        docker("stop", "--time", "0", container.name)


def shares(url: str) -> dict[int, float]:
    """Return which versions of the model answer, and which share of the requests each has."""
    (model,) = requests.get(f"{url}/models", timeout=30).json()["models"]
    return {version["version"]: version["share"] for version in model["versions"]}


def _give_to_the_pods(models: str, image: str) -> None:
    """Let a volume belong to the pods' user and group, as a cluster does by fsGroup."""
    user = pod_of("seed").spec["securityContext"]
    docker("run", "--rm", "--user=0", f"--volume={models}:/volume", "--entrypoint=chown", image,
           f"{user['runAsUser']}:{user['fsGroup']}", "/volume")  # fmt: skip


def test_a_pod_without_a_model_lives_and_is_not_ready(image: str, models: str, tmp_path: Path) -> None:
    """With an empty volume the container is not started again and again: it waits for a version, unready."""
    with running(pod_of("production"), image, {"darkroom-models": models}, tmp_path) as container:
        container.await_probe("startupProbe")
        assert container.probe("livenessProbe") == 200
        assert container.probe("readinessProbe") == 503
        docker("stop", "--time", "0", container.name)
