"""``docker stack deploy`` on a real Swarm: under steady load, updates, scaling and failures lose no request.

Where the kernel has IPVS, requests go through Swarm's own routing mesh; elsewhere HAProxy stands in for it (mesh.yml).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from service.inference.plan import Plan, write_plan
from tests.models import copy
from tests.service.pictures import plain
from tests.stack.load import Load
from tests.stack.swarm import HOST, Stack, images, second_node, stack, swarm

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.containers, pytest.mark.timing]

RED = plain("red")
OTHER = ("cherry", "grass", "sky")

RECIPES = {
    "newer": "LABEL newer=1",
    # It starts, and is never ready. All that the second line changes is that Docker finds out sooner.
    "bad": "ENV MODEL_DIR=/nowhere\n"
    "HEALTHCHECK --interval=1s --start-period=3s CMD python -I /usr/local/lib/darkroom/healthcheck.py",
}


@pytest.fixture(scope="module")
def tags(root: Path, docker_engine: None) -> Iterator[dict[str, str]]:
    """The tags of the images: ``good``, ``newer`` and ``bad``."""
    with images(root, RECIPES) as built:
        yield built


@pytest.fixture(scope="module")
def network(docker_engine: None) -> Iterator[str]:
    """The network by which nodes join the Swarm that this machine manages."""
    with swarm() as made:
        yield made


@pytest.fixture(scope="module")
def running(
    root: Path, network: str, tags: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The stack, with a folder of models."""
    models = tmp_path_factory.mktemp("swarm") / "models"
    models.mkdir()
    with stack(root, models) as made:
        yield made


@pytest.fixture
def deployed(running: Stack, tags: dict[str, str], published: Path) -> Stack:
    """The stack as every test finds it: two replicas of a good image, which answer with version 1."""
    shutil.rmtree(running.models / "colours", ignore_errors=True)
    copy(published, running.models, 1)
    image = tags["newer"] if running.image() == tags["newer"] else tags["good"]
    running.deploy(image)
    running.wait_until_only(image)
    running.wait_for(lambda: running.versions() == [1, 1], "answer with version 1 of all replicas")
    return running


def another(deployed: Stack, tags: dict[str, str]) -> str:
    """Return the good image that the stack does not run."""
    return tags["good"] if deployed.image() == tags["newer"] else tags["newer"]


def assert_nothing_lost(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Report the load, and fail where a request got no answer, or one that its version could not give."""
    with capsys.disabled():
        print(f"\n    {load.report()}")
    assert load.lost == [], load.report()
    label_of = {1: "red", 2: OTHER[0]}
    assert [answer for answer in load.answers if answer.label != label_of[answer.version]] == []


def test_a_replica_is_confined_and_can_write_what_it_must(deployed: Stack) -> None:
    """The root is read-only and no capability is left; a form too large for memory still finds room in ``/tmp``."""
    [engine, container], _ = deployed.replicas()
    host = json.loads(engine.docker("inspect", "--format", "{{json .HostConfig}}", container))
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "tmpfs /tmp " in engine.docker("exec", container, "cat", "/proc/mounts")
    large = {"image": ("large.bmp", plain("red", "BMP", size=(1000, 1000)), "image/bmp")}
    response = requests.post(f"{deployed.url}/predict", files=large, timeout=30)
    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["label"] == "red"


def test_update_to_a_new_image(deployed: Stack, tags: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A new image takes the place of the old one replica by replica; no request is lost, the old ones end cleanly."""
    old = [container for _, container in deployed.replicas()]
    with Load(deployed.url, RED) as load:
        newer = another(deployed, tags)
        deployed.deploy(newer)
        deployed.wait_until_only(newer)
        load.wait_for_answers(200)
    assert_nothing_lost(load, capsys)
    codes = [HOST.docker("inspect", "--format", "{{.State.ExitCode}}", container) for container in old]
    assert codes == ["0", "0"]


def test_bad_image_is_rolled_back(deployed: Stack, tags: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """An image that never gets healthy receives no request, and Swarm goes back to the one before by itself."""
    good = deployed.image()
    before = {container for _, container in deployed.replicas()}
    with Load(deployed.url, RED) as load:
        deployed.deploy(tags["bad"])
        deployed.wait_for(lambda: deployed.update().get("State") == "rollback_completed", "rollback")
        deployed.wait_until_only(good)
    assert_nothing_lost(load, capsys)
    assert {container for _, container in deployed.replicas()} & before, "every old replica was replaced"


def test_update_to_a_new_model_version(deployed: Stack, published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that is published into the folder is soon what all replicas answer with; removing it undoes that."""
    replicas = deployed.replicas()
    with Load(deployed.url, RED) as load:
        newer = copy(published, deployed.models, 2, OTHER)
        deployed.wait_for(lambda: deployed.versions() == [2, 2], "answer with version 2 of all replicas")
        settled = len(load.answers)
        load.wait_for_answers(200)
        updated = {answer.version for answer in load.answers[settled + 50 : settled + 200]}
        shutil.rmtree(newer)
        deployed.wait_for(lambda: deployed.versions() == [1, 1], "answer with version 1 of all replicas")
    assert_nothing_lost(load, capsys)
    assert updated == {2}
    assert load.answers[0].version == load.answers[-1].version == 1
    assert deployed.replicas() == replicas


def test_a_canary_by_one_file(
    deployed: Stack, tags: dict[str, str], published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both replicas follow serving.json, also through an update of the image; up to the rollback nothing is lost."""
    folder = deployed.models / "colours"
    write_plan(folder, Plan(labels={"stable": 1}))
    copy(published, deployed.models, 2, OTHER)

    def shares(load: Load) -> float:
        """Return which share of the next answers version 2 has."""
        load.wait_for_answers(50)
        settled = len(load.answers)
        load.wait_for_answers(400)
        versions = [answer.version for answer in load.answers[settled : settled + 400]]
        return versions.count(2) / len(versions)

    with Load(deployed.url, RED) as load:
        assert shares(load) == 0
        write_plan(folder, Plan(labels={"stable": 1, "canary": 2}, traffic={"stable": 3, "canary": 1}))
        deployed.wait_for(lambda: canaries(deployed) == [0.25, 0.25], "canary on all replicas")
        assert 0.15 < shares(load) < 0.35
        newer = another(deployed, tags)
        deployed.deploy(newer)
        deployed.wait_until_only(newer)
        assert 0.15 < shares(load) < 0.35
        write_plan(folder, Plan(labels={"stable": 2, "former": 1}))
        deployed.wait_for(lambda: canaries(deployed) == [1, 1], "version 2 as the stable one of all replicas")
        assert shares(load) == 1
        write_plan(folder, Plan(labels={"stable": 1, "latest": 2}))
        deployed.wait_for(lambda: canaries(deployed) == [0, 0], "version 1 as the stable one of all replicas")
        assert shares(load) == 0
    assert_nothing_lost(load, capsys)


def canaries(deployed: Stack) -> list[float]:
    """Return which share of the requests version 2 has, by each replica."""
    told = [json.loads(engine.get(container, "/models")) for engine, container in deployed.replicas()]
    versions = [version for answer in told for version in answer["models"][0]["versions"] if version["version"] == 2]
    return [version["share"] for version in versions]


def test_scale_up_and_down(deployed: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Two replicas become four, which all get requests, and two again, with no request lost."""
    with Load(deployed.url, RED) as load:
        deployed.scale(4)
        deployed.wait_until_only(deployed.image(), 4)
        deployed.wait_for(lambda: all(answered(deployed)), "request to each of the four replicas", 30)
        deployed.scale(2)
        deployed.wait_until_only(deployed.image(), 2)
        load.wait_for_answers(200)
    assert_nothing_lost(load, capsys)


def answered(deployed: Stack) -> list[bool]:
    """Return of each replica whether it has answered a request to ``/predict``."""
    return ['route="/predict"' in engine.get(container, "/metrics") for engine, container in deployed.replicas()]


def test_kill_of_a_replica(deployed: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL of a replica takes with it the requests that it had begun; clients that ask again lose none.

    Swarm puts another replica in its place.
    """
    with Load(deployed.url, RED, retry=True) as load:
        _, victim = deployed.replicas()[0]
        HOST.docker("kill", "--signal", "KILL", victim)
        deployed.wait_until_only(deployed.image())
        load.wait_for_answers(200)
    assert_nothing_lost(load, capsys)
    assert victim not in {container for _, container in deployed.replicas()}


def test_two_nodes(
    deployed: Stack, network: str, tags: dict[str, str], published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replicas spread over two nodes; a new model version, draining a node and a new image lose no request."""
    newer = another(deployed, tags)
    both = (tags["good"], tags["newer"])
    with second_node(network, deployed.models, *both) as node, deployed.on(node), Load(deployed.url, RED) as load:
        deployed.scale(4)
        deployed.wait_until_only(deployed.image(), 4)
        assert spread(deployed) == [2, 2]
        copy(published, deployed.models, 2, OTHER)
        deployed.wait_for(lambda: deployed.versions() == [2] * 4, "answer with version 2 on both nodes")
        name = node.docker("info", "--format", "{{.Name}}")
        HOST.docker("node", "update", "--availability", "drain", name)
        deployed.wait_until_only(deployed.image(), 4)
        assert spread(deployed) == [4, 0]
        HOST.docker("node", "update", "--availability", "active", name)
        deployed.deploy(newer)
        deployed.wait_until_only(newer)
        assert spread(deployed)[1] > 0
        load.wait_for_answers(200)
    assert_nothing_lost(load, capsys)


def spread(deployed: Stack) -> list[int]:
    """Return how many replicas run on each node."""
    return [len(engine.containers(deployed.service)) for engine in deployed.engines]
