"""What holds for the repository as a whole: its locks, its size, and that one fact is not written in two ways."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

LOCKS = ("service", "service-all", "trainer", "dev", "rivals")
TOOLS = ("client", "interop", "tracking", "kubernetes", "audit")
LARGEST_BYTES = 16 * 1024 * 1024


def lock(root: Path, name: str) -> str:
    """Return the text of one lock."""
    return (root / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def packages(text: str) -> set[str]:
    """Return the names of the packages that a lock installs."""
    return set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize("name", [*LOCKS, *TOOLS])
def test_every_locked_package_has_a_version_and_a_hash(root: Path, name: str) -> None:
    """An install takes exactly the files that the lock was made with."""
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", lock(root, name)).strip())
    assert len(entries) > 5
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("name", LOCKS)
def test_locks_bring_no_telemetry_and_name_no_host(root: Path, name: str) -> None:
    """Nothing that phones home is installed, and people behind a mirror use the same locks."""
    assert "openvino" in packages(lock(root, name))
    assert "openvino-telemetry" not in packages(lock(root, name))
    assert "://" not in lock(root, name)
    assert "--find-links" not in lock(root, name)


def test_the_service_is_locked_without_tensorflow(root: Path) -> None:
    """The slim container gets OpenVINO and no training framework."""
    locked = packages(lock(root, "service")) | packages(lock(root, "service-all"))
    assert not {name for name in locked if name.startswith(("tensorflow", "keras", "nvidia"))}


def test_locks_have_all_that_the_project_asks_for(root: Path) -> None:
    """A dependency that was added to pyproject.toml was locked too."""
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {extra: {re.split(r"[^a-z0-9._-]", line)[0] for line in lines} for extra, lines in extras.items()}
    assert asked["service"] <= packages(lock(root, "service"))
    everything = asked["service"] | asked["grpc"] | asked["sources"] | asked["tracing"]
    assert everything <= packages(lock(root, "service-all"))
    assert asked["training"] | asked["cuda"] <= packages(lock(root, "trainer"))
    assert asked["service"] | asked["training"] | asked["cpu"] | asked["dev"] <= packages(lock(root, "dev"))
    assert asked["client"] <= packages(lock(root, "client"))
    assert asked["rivals"] <= packages(lock(root, "rivals"))
    assert asked["fuzz"] <= packages(lock(root, "fuzz"))


def test_images_and_tests_use_the_same_versions(root: Path) -> None:
    """What a lock for an image has is what the tests ran with."""
    tested = set(re.findall(r"^([a-z0-9._-]+==\S+)", lock(root, "dev"), re.MULTILINE))
    for name in ("service", "service-all", "trainer", "client"):
        shipped = set(re.findall(r"^([a-z0-9._-]+==\S+)", lock(root, name), re.MULTILINE))
        assert {pin for pin in shipped - tested if not pin.startswith(("nvidia-", "tensorflow"))} == set()


def test_what_is_fuzzed_is_what_is_served(root: Path) -> None:
    """The decoders that a fuzzer tries have the service's versions."""
    for package in ("numpy", "pillow"):
        fuzzed, served = (
            re.findall(rf"^{package}==\S+", lock(root, name), re.MULTILINE) for name in ("fuzz", "service")
        )
        assert fuzzed == served, package


def test_the_trainers_cuda_libraries_are_those_that_tensorflow_asks_for(root: Path) -> None:
    """Each NVIDIA package in the trainer's lock has a version that TensorFlow of that lock was built for, and no more.

    TensorFlow names them in its metadata, for pip's tensorflow[and-cuda]; its builds with and without CUDA share that.
    """
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock(root, "trainer"), re.MULTILINE))
    tensorflow = next(d for d in metadata.distributions() if re.fullmatch(r"tensorflow([-_]cpu)?", d.name))
    assert tensorflow.version == locked["tensorflow"]
    cuda = [Requirement(line) for line in tensorflow.requires or [] if "and-cuda" in line]
    assert len(cuda) > 10
    for requirement in cuda:
        assert requirement.specifier.contains(locked[requirement.name]), requirement
    assert {name for name in locked if name.startswith("nvidia-")} == {requirement.name for requirement in cuda}


def test_no_file_is_too_large_to_review_or_to_clone(root: Path) -> None:
    """What is committed, or would be, stays under 16 MiB a file, the bundled model included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    files = [root / name for name in listed.stdout.split("\0") if name]
    assert [str(file) for file in files if file.is_file() and file.stat().st_size > LARGEST_BYTES] == []


def test_every_test_says_what_it_proves(root: Path) -> None:
    """A test's docstring names the behaviour, so that a failure reads as a sentence."""
    files = list((root / "tests").rglob("test_*.py"))
    functions = [
        (file, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(functions) > len(files)
    silent = [f"{file.relative_to(root)}:{node.lineno}" for file, node in functions if not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize(
    ("argument", "dockerfile"),
    [
        ("PYTHON_IMAGE", "service.Dockerfile"),
        ("PYTHON_IMAGE", "trainer.Dockerfile"),
        ("CUDA_IMAGE", "trainer.Dockerfile"),
    ],
)
def test_a_base_image_has_one_default(root: Path, argument: str, dockerfile: str) -> None:
    """``docker build`` and ``docker compose build`` start from the same base image, and CI prepares that one."""
    recipe = (root / "docker" / dockerfile).read_text(encoding="utf-8")
    default = re.search(rf"^ARG {argument}=(\S+)$", recipe, re.MULTILINE)
    assert default
    composed = "".join(file.read_text(encoding="utf-8") for file in root.glob("docker-compose*.yml"))
    assert f"${{{argument}:-{default[1]}}}" in composed
    assert f"={default[1]}" in (root / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.process
@pytest.mark.slow
def test_a_file_of_tests_is_one_workers(root: Path) -> None:
    """Several workers share the files, each of which is run by one, so that its fixtures are made once."""
    places = ["tests/machine", "tests/artifact/test_signature.py", "tests/artifact/test_layout.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--numprocesses",
        "2",
        "--dist",
        "loadfile",
        "-v",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run([*command, *places], cwd=root, capture_output=True, text=True, check=True)
    workers_of: defaultdict[str, set[str]] = defaultdict(set)
    for worker, file in re.findall(r"^\[(gw\d)\] .* (tests/\S+\.py)::", ran.stdout, re.MULTILINE):
        workers_of[file].add(worker)
    assert len(workers_of) == 2 + len(list((root / "tests/machine").glob("test_*.py"))), ran.stdout
    assert {len(workers) for workers in workers_of.values()} == {1}
    assert len(set.union(*workers_of.values())) == 2
