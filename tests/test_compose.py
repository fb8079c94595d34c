"""The Compose files: clean under every profile, hardened, and told in full by .env.example."""

import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, documentation

# The image fixes where it listens and reads, and TensorFlow is not in it.
OF_THE_IMAGE = {"HOST", "PORT", "MODEL_DIR", "ENGINE"}
# No settings of the service, but OpenTelemetry's variables, which it obeys.
OF_OPENTELEMETRY = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}
ASSIGNMENT = re.compile(r"(?m)^#([A-Z][A-Z0-9_]*)=(.*)$")


def compose_files(root: Path) -> list[Path]:
    """Return every Compose file of the project."""
    return [*root.glob("docker-compose*.yml"), *(root / "docker").glob("*.yml")]


@pytest.fixture
def example(root: Path) -> dict[str, str]:
    """The variables of .env.example with their values, which stand in comments."""
    pairs = ASSIGNMENT.findall((root / ".env.example").read_text(encoding="utf-8"))
    assert len(pairs) == len(dict(pairs)), "a variable stands twice"
    return dict(pairs)


@pytest.fixture
def base(root: Path) -> Any:
    """docker-compose.yml, as YAML."""
    return yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def compose_plugin() -> None:
    """Skip where Docker's Compose plugin is missing; no engine is needed."""
    if not shutil.which("docker"):
        pytest.skip("there is no docker command")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker has no Compose plugin")


def config(root: Path, *arguments: str, options: tuple[str, ...] = ()) -> str:
    """Return what ``docker compose config`` prints where no variable is set; it may not warn of anything."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    command = ["docker", "compose", *options, "config", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def without_settings(rendered: str) -> Any:
    """Return a configuration without the settings that are handed to the service."""
    found = yaml.safe_load(rendered)
    del found["services"]["service"]["environment"]
    return found


def test_every_profile_is_clean(root: Path, compose_plugin: None) -> None:
    """Compose takes the files without a warning: as they are, under each profile, and under all of them."""
    profiles = config(root, "--profiles").split()
    assert {"train", "train-cpu"} <= set(profiles)
    for profile in (None, *profiles, "*"):
        config(root, "--quiet", options=("--profile", profile) if profile else ())


@pytest.mark.parametrize(
    ("profile", "services"), [("train", {"service", "trainer"}), ("train-cpu", {"service", "trainer-cpu"})]
)
def test_up_is_one_service_and_a_profile_adds_one(
    root: Path, compose_plugin: None, profile: str, services: set[str]
) -> None:
    """``docker compose up`` starts the service alone; a trainer has to be asked for."""
    assert set(config(root, "--services").split()) == {"service"}
    assert set(config(root, "--services", options=("--profile", profile)).split()) == services


def test_only_the_trainer_of_profile_train_reserves_gpus(root: Path, compose_plugin: None) -> None:
    """It is given every GPU; its sibling starts where there is none, and says that it was not meant to have one."""
    services = yaml.safe_load(config(root, options=("--profile", "*")))["services"]
    (device,) = services["trainer"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert "reservations" not in services["trainer-cpu"]["deploy"]["resources"]
    assert services["trainer-cpu"]["environment"]["DARKROOM_DEVICE"] == "cpu"
    for name in ("trainer", "trainer-cpu"):
        assert services[name]["environment"]["DARKROOM_COMMAND"].endswith(f" run --rm {name}")


@pytest.mark.parametrize("name", ["service", "prometheus", "grafana", "trainer", "trainer-cpu"])
def test_a_container_has_few_rights_and_limits(root: Path, compose_plugin: None, name: str) -> None:
    """Its root is read-only, it has no capability that it has no use for and gains none, and its logs are rotated."""
    service = yaml.safe_load(config(root, options=("--profile", "*")))["services"][name]
    trains = name.startswith("trainer")
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["SETGID", "SETUID"] if trains else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("init" in service) != trains
    assert service["restart"] == ("no" if trains else "unless-stopped")
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["deploy"]["resources"]["limits"]["pids"] > 0
    assert ("ports" in service) != trains
    assert "privileged" not in service


def test_every_image_can_be_pinned(root: Path) -> None:
    """Each image is a variable, so that a digest can take the place of its tag."""
    for file in compose_files(root):
        for image in re.findall(r"(?m)^ +image: (.+)$", file.read_text(encoding="utf-8")):
            assert re.fullmatch(r"(\$\{IMAGE_PREFIX:-\})?\$\{[A-Z_]+_IMAGE:-[^}]+\}", image), f"{file.name}: {image}"


def test_the_projects_images_have_its_name_and_come_from_any_registry(
    root: Path, compose_plugin: None, tmp_path: Path
) -> None:
    """On a machine with other projects they cannot be taken for theirs; a prefix names the registry of all of them."""
    (tmp_path / ".env").write_text("IMAGE_PREFIX=registry.example/team/\n")
    names = {name: f"darkroom-{name}" for name in ("service", "trainer", "trainer-cpu")}
    for options, prefix in (((), ""), (("--env-file", str(tmp_path / ".env")), "registry.example/team/")):
        services = yaml.safe_load(config(root, options=(*options, "--profile", "*")))["services"]
        assert {name: services[name]["image"] for name in names} == {
            name: prefix + image for name, image in names.items()
        }
    assert services["trainer-cpu"]["build"]["args"]["DEVICE"] == "cpu"
    assert "DEVICE" not in services["trainer"]["build"]["args"]


def test_a_user_a_limit_and_an_image_can_be_set(root: Path, compose_plugin: None, tmp_path: Path) -> None:
    """Variables of .env give the service another user, other limits, and an image by its digest."""
    digest = "registry.example/darkroom-service@sha256:" + "0" * 64
    (tmp_path / ".env").write_text(
        f"SERVICE_USER=1234:1235\nSERVICE_IMAGE={digest}\nMEMORY=1g\nCPUS=1.5\nPIDS=99\nTRAINER_USER=1234:1235\n"
    )
    options = ("--env-file", str(tmp_path / ".env"), "--profile", "*")
    services = yaml.safe_load(config(root, options=options))["services"]
    assert services["service"]["user"] == services["trainer"]["user"] == "1234:1235"
    assert services["service"]["image"] == digest
    limits = services["service"]["deploy"]["resources"]["limits"]
    assert (int(limits["memory"]), float(limits["cpus"]), limits["pids"]) == (1024**3, 1.5, 99)


@pytest.mark.parametrize(("host", "published"), [(None, "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])  # noqa: S104
def test_only_this_machine_may_ask_unless_it_is_said(
    root: Path, compose_plugin: None, tmp_path: Path, host: str | None, published: str
) -> None:
    """Every port of Compose is published on loopback; HOST opens that of the service."""
    (tmp_path / ".env").write_text(f"HOST={host}\n" if host else "")
    services = yaml.safe_load(config(root, options=("--env-file", str(tmp_path / ".env"), "--profile", "*")))[
        "services"
    ]
    assert [port["host_ip"] for port in services["service"]["ports"]] == [published]
    others = [
        port["host_ip"] for name, service in services.items() if name != "service" for port in service.get("ports", [])
    ]
    assert others == ["127.0.0.1"] * len(others)
    assert others


def test_in_a_container_the_service_listens_to_others(root: Path) -> None:
    """There loopback is the container's own: what is published, or a cluster's network, could not reach it."""
    recipe = (root / "docker" / "service.Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ +HOST=0\.0\.0\.0 ", recipe, re.MULTILINE)
    assert Settings().host == "127.0.0.1"


def test_a_swarm_takes_the_service_too(root: Path, compose_plugin: None) -> None:
    """``docker stack`` reads docker-compose.yml, with its limits, without an error."""
    done = subprocess.run(
        ["docker", "stack", "config", "--compose-file", "docker-compose.yml"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    limits = yaml.safe_load(done.stdout)["services"]["service"]["deploy"]["resources"]["limits"]
    assert {"memory", "pids"} <= set(limits)


def test_docker_waits_longer_than_the_service_drains(base: Any) -> None:
    """By default what is in flight when the service is stopped is answered before Docker kills it."""
    period = re.fullmatch(r"\$\{STOP_GRACE_PERIOD:-(\d+)s\}", base["services"]["service"]["stop_grace_period"])
    assert period
    settings = Settings()
    assert int(period[1]) > settings.drain_seconds + settings.request_deadline + 5


def test_compose_passes_every_setting_that_is_not_the_containers_own(base: Any) -> None:
    """A setting in the environment or in .env reaches the service in its container, and so do variables on traces."""
    assert set(base["services"]["service"]["environment"]) > OF_OPENTELEMETRY
    passed = set(base["services"]["service"]["environment"]) - OF_OPENTELEMETRY
    assert passed == {setting.variable for setting in documentation()} - OF_THE_IMAGE


def test_the_example_has_every_variable_and_no_other(root: Path, example: dict[str, str]) -> None:
    """.env.example holds each ${VARIABLE} of the Compose files, and each that they pass on under its own name."""
    used = set()
    for file in compose_files(root):
        used |= set(
            re.findall(r"\$\{([A-Z][A-Z0-9_]*)|(?m:^ +- (?!CMD$)([A-Z][A-Z0-9_]*)$)", file.read_text(encoding="utf-8"))
        )
    assert set(example) == {"".join(names) for names in used}


def test_every_variable_of_the_example_has_a_comment(root: Path) -> None:
    """Whoever reads it learns what each is for: a comment stands above every group of variables."""
    for block in (root / ".env.example").read_text(encoding="utf-8").strip().split("\n\n"):
        lines = block.splitlines()
        assert lines[0].startswith("# "), block
        assert all(line.startswith("#") for line in lines), block


def test_the_example_tells_the_true_defaults(root: Path, example: dict[str, str]) -> None:
    """What stands behind a setting is what the service takes without it; what follows from the machine stands open."""
    assert Settings.from_environment({k: v for k, v in example.items() if k not in OF_THE_IMAGE}) == (
        Settings.from_environment({})
    )
    by_variable = {field.metadata["env"]: field for field in fields(Settings)}
    for setting in documentation():
        if setting.variable in example and setting.variable not in OF_THE_IMAGE:
            open_ = by_variable[setting.variable].metadata["from_machine"] or setting.default == "unset"
            assert example[setting.variable] == ("" if open_ else setting.default), setting.variable


def test_the_example_changes_nothing(root: Path, compose_plugin: None, example: dict[str, str], tmp_path: Path) -> None:
    """With every line of .env.example uncommented, Compose starts the same as without: the values are the defaults."""
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in example.items()))
    everything = ("--profile", "*")
    with_file = config(root, options=("--env-file", str(tmp_path / "env"), *everything))
    assert without_settings(with_file) == without_settings(config(root, options=everything))


def test_the_documents_name_real_profiles_and_services(root: Path, compose_plugin: None) -> None:
    """Each ``docker compose --profile P run ... SERVICE`` that people are told names a service of that profile."""
    files = [
        *(root / "docs").glob("*.md"),
        *root.glob("docker-compose*.yml"),
        root / "CHANGELOG.md",
    ]
    told = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        told |= set(re.findall(r"docker compose --profile ([a-z-]+) run --rm(?: -v \S+)* ([a-z-]+)", text))
    assert {("train", "trainer"), ("train-cpu", "trainer-cpu")} <= told
    for profile, service in told:
        assert service in config(root, "--services", options=("--profile", profile)).split()
