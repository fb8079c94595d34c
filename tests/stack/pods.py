"""Pods of the manifests as containers of Docker: the same user, limits, root, capabilities, variables and ports.

What is Kubernetes' alone (scheduling, Services, policies) is not there.
"""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.kubernetes.manifests import Document, Pod, config_map, variables

_UNITS = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


@dataclass(frozen=True)
class Container:
    """A container that runs, or ran, as the first one of a pod."""

    name: str
    specification: Document

    def url(self) -> str:
        """Return the address of its first port on this machine."""
        port = self.specification["ports"][0]["containerPort"]
        return f"http://{docker('port', self.name, str(port)).split()[0]}"

    def inspect(self) -> Any:
        """Return what Docker knows of it."""
        return json.loads(docker("inspect", self.name))[0]

    def log(self) -> str:
        """Return what it wrote."""
        return docker("logs", self.name)

    def probe(self, kind: str) -> int | None:
        """Return the status that ``startupProbe``, ``livenessProbe`` or ``readinessProbe`` gets; None for no answer."""
        probe = self.specification[kind]
        try:
            return requests.get(self.url() + probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]).status_code
        except requests.RequestException:
            return None

    def await_probe(self, kind: str) -> float:
        """Ask as the kubelet does until the probe passes, within what the probe allows; return the seconds."""
        probe = self.specification[kind]
        started = time.monotonic()
        for _ in range(probe["failureThreshold"] + 1):
            if self.probe(kind) == 200:
                return time.monotonic() - started
            time.sleep(probe["periodSeconds"])
        raise AssertionError(f"the {kind} did not pass:\n{self.log()}")


def docker(*arguments: str, timeout: float = 120) -> str:
    """Run ``docker`` and return what it prints, stdout and stderr together."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, f"docker {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@contextmanager
def running(pod: Pod, image: str, volumes: Mapping[str, str], folder: Path) -> Iterator[Container]:
    """Run the pod's container with ``image`` in place of its own; remove it afterwards.

    ``volumes`` has the volume of Docker's that stands in for each claim of the pod, by the claim's name. What the pod
    mounts from ConfigMaps is written to ``folder``.
    """
    (specification,) = pod.spec["containers"]
    name = f"darkroom-pod-{uuid.uuid4().hex[:8]}"
    try:
        docker(
            "run",
            "--detach",
            "--name",
            name,
            *_options(pod, specification, volumes, folder),
            image,
            *_command(specification),
        )
        yield Container(name, specification)
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False, timeout=60)


def _command(specification: Document) -> list[str]:
    return [*specification.get("command", [])[1:], *specification.get("args", [])]


def _options(pod: Pod, specification: Document, volumes: Mapping[str, str], folder: Path) -> list[str]:
    security = specification["securityContext"]
    limits = specification["resources"]["limits"]
    user = pod.spec["securityContext"]
    options = [
        f"--user={user['runAsUser']}:{user['runAsGroup']}",
        f"--cpus={limits['cpu']}",
        f"--memory={_bytes(limits['memory'])}",
        f"--memory-swap={_bytes(limits['memory'])}",  # as much as the memory: there is no swap
        *(f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]),
        *(f"--publish=127.0.0.1::{port['containerPort']}" for port in specification.get("ports", [])),
        *(f"--env={name}={value}" for name, value in variables(pod).items()),
    ]
    if security["readOnlyRootFilesystem"]:
        options.append("--read-only")
    if not security["allowPrivilegeEscalation"]:
        options.append("--security-opt=no-new-privileges")
    if command := specification.get("command"):
        options.append(f"--entrypoint={command[0]}")
    sources = {volume["name"]: volume for volume in pod.spec["volumes"]}
    mounts = specification["volumeMounts"]
    return options + [_mount(pod, mount, sources[mount["name"]], volumes, folder) for mount in mounts]


def _mount(pod: Pod, mount: Document, source: Document, volumes: Mapping[str, str], folder: Path) -> str:
    path = mount["mountPath"]
    if "emptyDir" in source:
        return f"--tmpfs={path}:size={_bytes(source['emptyDir']['sizeLimit'])}"
    if "configMap" in source:
        files = folder / source["name"]
        files.mkdir(mode=0o755)
        for name, content in config_map(pod.overlay, source["configMap"]["name"]).items():
            (files / name).write_text(content, encoding="utf-8")
        return f"--volume={files}:{path}:ro"
    mode = "ro" if mount.get("readOnly") else "rw"
    # nocopy: Docker would fill an empty volume with what the image has there.
    return f"--volume={volumes[source['persistentVolumeClaim']['claimName']]}:{path}:{mode},nocopy"


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]
