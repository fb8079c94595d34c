"""A real Swarm on this machine, a stack on it, and a second node; all of it is removed afterwards."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import BUILD_SECONDS
from tests.service.running import free_port
from tests.stack.service_image import built

HAPROXY_IMAGE = os.environ.get("HAPROXY_IMAGE") or "haproxy:3.2"
DEBIAN_IMAGE = os.environ.get("DEBIAN_IMAGE") or "debian:13-slim"

_FILES = ("docker-compose.yml", "docker/swarm.yml", "docker/swarm-models.yml", "tests/stack/quick.yml")
_STAND_IN = "tests/stack/mesh.yml"
_PATIENCE = 90.0  # seconds

# A second node: an engine in a container, with a disk of its own, since overlay cannot lie on overlay.
_NODE_RECIPE = f"""
FROM {DEBIAN_IMAGE}
RUN apt-get update -q && apt-get install -y -q --no-install-recommends docker.io docker-cli iptables \\
  && rm -rf /var/lib/apt/lists/*
VOLUME /var/lib/docker
CMD ["dockerd"]
"""
# What an engine in a container needs of --privileged, which asks for more than every machine has to give.
_NODE_RIGHTS = (
    *(
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "NET_ADMIN",
        "--cap-add",
        "SYS_PTRACE",
        "--device-cgroup-rule",
        "a *:* rwm",
    ),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
    *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup"),
)


@dataclass(frozen=True)
class Engine:
    """A Docker engine: this machine's, or one in a container of it."""

    prefix: tuple[str, ...] = ()

    def docker(self, *arguments: str, check: bool = True, timeout: float = 180.0, **more: Any) -> str:
        """Run ``docker`` on the engine and return what it prints, stdout and stderr together."""
        command = [*self.prefix, "docker", *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False, **more
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout.strip()

    def containers(self, service: str, *options: str) -> list[str]:
        """Return the ids of the containers of a Swarm service here, those that run unless ``options`` say more."""
        label = f"label=com.docker.swarm.service.name={service}"
        return self.docker("ps", "--quiet", "--filter", label, *options).split()

    def get(self, container: str, path: str) -> str:
        """Return what the service in ``container`` answers to GET ``path``, asked from inside: nobody else answers."""
        code = (
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000{path}', timeout=10).read().decode())"
        )
        return self.docker("exec", container, "python", "-c", code)


HOST = Engine()


@dataclass
class Stack:
    """The project as ``docker stack deploy`` runs it, with a folder of models that all nodes see."""

    root: Path
    name: str
    models: Path
    mesh: bool  # whether the kernel has what Swarm's own routing mesh needs
    engines: list[Engine] = field(default_factory=lambda: [HOST])
    port: int = field(default_factory=free_port)

    @property
    def service(self) -> str:
        """The name of the service in the Swarm."""
        return f"{self.name}_service"

    @property
    def url(self) -> str:
        """Where the mesh, or what stands for it, answers on this machine."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def on(self, node: Engine) -> Iterator[None]:
        """Look for replicas on ``node`` as well."""
        self.engines.append(node)
        try:
            yield
        finally:
            self.engines.remove(node)

    def deploy(self, image: str, **variables: str) -> None:
        """Deploy or update the stack with ``image``, and return at once."""
        files = _FILES if self.mesh else (*_FILES, _STAND_IN)
        environment = {
            "SERVICE_IMAGE": image,
            "HAPROXY_IMAGE": HAPROXY_IMAGE,
            "MODELS_VOLUME": str(self.models),
            "MODEL_POLL_SECONDS": "0.5",
            "WORKERS": "1",
            "PORT": str(self.port if self.mesh else 0),
            "MESH_PORT": str(self.port),
        }
        # The images are on no registry, so that none may be asked.
        command = ["stack", "deploy", "--resolve-image", "never", "--detach=true"]
        for file in files:
            command += ["--compose-file", file]
        HOST.docker(*command, self.name, cwd=self.root, env={**os.environ, **environment, **variables})

    def image(self) -> str:
        """Return the image that the service ought to run; what Docker says instead where there is no service."""
        image = "{{.Spec.TaskTemplate.ContainerSpec.Image}}"
        return HOST.docker("service", "inspect", "--format", image, self.service, check=False)

    def scale(self, replicas: int) -> None:
        """Change the number of replicas, and return at once."""
        HOST.docker("service", "scale", "--detach=true", f"{self.service}={replicas}")

    def tasks(self) -> list[dict[str, str]]:
        """Return the tasks that ought to run, as ``docker service ps`` tells them."""
        command = ("service", "ps", "--filter", "desired-state=running", "--format", "{{json .}}", self.service)
        return [json.loads(line) for line in HOST.docker(*command).splitlines() if line.startswith("{")]

    def update(self) -> dict[str, str]:
        """Return how far the last update is, in Docker's words; nothing where there was none."""
        status = HOST.docker("service", "inspect", "--format", "{{json .UpdateStatus}}", self.service)
        return json.loads(status) or {}

    def replicas(self) -> list[tuple[Engine, str]]:
        """Return the containers of the service that run, with their engines."""
        return [(engine, container) for engine in self.engines for container in engine.containers(self.service)]

    def versions(self) -> list[int]:
        """Return the model version that each replica answers with."""
        return [json.loads(engine.get(container, "/model"))["version"] for engine, container in self.replicas()]

    def wait_until_only(self, image: str, replicas: int = 2) -> None:
        """Wait until ``replicas`` replicas of ``image`` run, healthy, and no other does."""

        def settled() -> bool:
            tasks = self.tasks()
            running = [task for task in tasks if task["CurrentState"].startswith("Running")]
            return (
                len(tasks) == len(running) == replicas == len(self.replicas())
                and {task["Image"] for task in running} == {image}
                and self.update().get("State") not in ("updating", "rollback_started")
            )

        self.wait_for(settled, f"{replicas} replicas of {image}")

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
        """Wait until ``condition`` holds; fail with the state of the stack where it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"after {seconds:g} s there is no {what}:\n{self.explain()}")
            time.sleep(0.25)

    def explain(self) -> str:
        """Return what Docker knows of the stack."""
        tasks = HOST.docker("stack", "ps", "--no-trunc", self.name, check=False)
        logs = HOST.docker("service", "logs", self.service, check=False)
        return f"{self.update()}\n{tasks}\n{logs[-3000:]}"


@contextmanager
def swarm() -> Iterator[str]:
    """Make this engine the manager of a Swarm of its own; give the address at which nodes can join.

    An engine that is in a Swarm already is left alone, and the test skipped.
    """
    if HOST.docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        pytest.skip("this Docker engine is in a Swarm already, which the test would have to leave")
    network = f"darkroom-nodes-{uuid.uuid4().hex[:8]}"
    gateways = "docker_gwbridge"  # made by the first Swarm of an engine, and left behind
    with ExitStack() as cleanup:
        if gateways not in HOST.docker("network", "ls", "--format", "{{.Name}}").split():
            cleanup.callback(HOST.docker, "network", "rm", gateways, check=False)
        HOST.docker("network", "create", network)
        cleanup.callback(HOST.docker, "network", "rm", network, check=False)
        address = HOST.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network)
        cleanup.callback(HOST.docker, "swarm", "leave", "--force", check=False)
        HOST.docker("swarm", "init", "--advertise-addr", address, "--listen-addr", f"{address}:2377")
        yield network


@contextmanager
def stack(root: Path, models: Path) -> Iterator[Stack]:
    """Give a stack that is not deployed yet; it is removed, and its containers are gone, afterwards."""
    # The engine has loaded the kernel's module by now, where there is one.
    made = Stack(root, f"darkroom-{uuid.uuid4().hex[:8]}", models, mesh=Path("/proc/net/ip_vs").exists())
    try:
        yield made
    finally:
        HOST.docker("stack", "rm", made.name, check=False)
        deadline = time.monotonic() + _PATIENCE
        while made.replicas() and time.monotonic() < deadline:
            time.sleep(0.25)


@contextmanager
def images(root: Path, recipes: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Build the service's image as ``good``, and on top of it one for each of ``recipes``; give their tags."""
    tags = {name: f"darkroom-service:swarm-{uuid.uuid4().hex[:8]}-{name}" for name in recipes}
    with built(root) as good:
        try:
            for name, recipe in recipes.items():
                build(f"FROM {good}\n{recipe}", tags[name])
            yield {"good": good, **tags}
        finally:
            HOST.docker("image", "rm", "--force", *tags.values(), check=False)


def build(recipe: str, tag: str) -> None:
    """Build the Dockerfile ``recipe`` without a context."""
    HOST.docker("build", "--quiet", "--tag", tag, "-", input=recipe, timeout=BUILD_SECONDS)


@contextmanager
def second_node(network: str, folder: Path, *images: str) -> Iterator[Engine]:
    """Join an engine in a container of ``network`` to the Swarm; it has ``folder`` at the same path, and ``images``."""
    name = f"darkroom-node-{uuid.uuid4().hex[:8]}"
    try:
        build(_NODE_RECIPE, name)
        run = ("run", "--detach", "--hostname", name, "--name", name, "--network", network, *_NODE_RIGHTS)
        HOST.docker(*run, "--volume", f"{folder}:{folder}:ro", name)
        node = Engine(("docker", "exec", "--interactive", name))
        _wait_for_engine(node, name)
        load = f"docker save {' '.join(images)} | docker exec --interactive {name} docker load"
        subprocess.run(["bash", "-o", "pipefail", "-c", load], check=True, capture_output=True, timeout=300)
        token = HOST.docker("swarm", "join-token", "--quiet", "worker")
        manager = HOST.docker("info", "--format", "{{(index .Swarm.RemoteManagers 0).Addr}}")
        node.docker("swarm", "join", "--token", token, manager)
        yield node
    finally:
        HOST.docker("rm", "--force", "--volumes", name, check=False)
        HOST.docker("node", "rm", "--force", name, check=False)
        HOST.docker("image", "rm", "--force", name, check=False)


def _wait_for_engine(node: Engine, name: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while "Server Version" not in node.docker("info", check=False):
        if time.monotonic() > deadline:
            pytest.fail(f"the second engine does not answer:\n{HOST.docker('logs', name, check=False)[-3000:]}")
        time.sleep(0.25)
