"""The lines that the design draws: between the packages, between the rooms inside them, and no circle anywhere."""

import ast
import functools
import graphlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGES = ("artifact", "machine", "imaging", "training", "service", "client")

# The rooms of a package and the files beside them, from below: each may import those before it, and never one behind.
ROOMS = {
    "training": (
        "errors", "names", "progress", "data", "network", "evaluation", "report", "fit", "check", "publish", "study",
        "run", "commands", "cli", "__main__"
    ),
    "service": (
        "settings", "inference", "captures", "sources", "observe", "web", "protocols", "app", "serving", "__main__"
    ),
}  # fmt: skip

Graph = Mapping[str, set[str]]
"""The modules of the project, each with the modules of the project that it imports."""


def imported(folder: Path) -> set[str]:
    """Return the top-level names that the modules below ``folder`` import anywhere, also inside functions."""
    parsed = [_names_in(file) for file in folder.rglob("*.py")]
    assert parsed, f"{folder} holds no modules"
    return {name.partition(".")[0] for names in parsed for name in names}


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the packages in ``root`` by the names of their modules."""
    return {_module(root, file): file for package in PACKAGES for file in (root / package).rglob("*.py")}


def graph(root: Path) -> dict[str, set[str]]:
    """Return which module of the packages in ``root`` imports which others of them, anywhere."""
    files = modules(root)
    return {
        module: {found for name in _names_in(file) if (found := _known(name, files)) and found != module}
        for module, file in files.items()
    }


def _known(name: str, files: Mapping[str, Path]) -> str | None:
    """Return the module that importing ``name``, a module or something in one, leads to; None outside the project."""
    return next((known for known in (name, name.rpartition(".")[0]) if known in files), None)


def _module(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), file.name)


@functools.cache
def _names_in(file: Path) -> frozenset[str]:
    """Return what ``file`` imports; read once, since many of the tests ask."""
    return frozenset(_names(_parsed(file)))


def _names(module: ast.Module) -> Iterator[str]:
    """Yield the full name of whatever ``module`` imports: ``a.b`` of ``import a.b`` and of ``from a import b``."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides which package is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif _imports_by_name(node):
            yield node.args[0].value  # type: ignore[attr-defined]


def _imports_by_name(node: ast.AST) -> bool:
    """Say whether ``node`` is ``import_module("name")`` or ``__import__("name")``."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return function in ("import_module", "__import__")


@pytest.mark.parametrize(("package", "other"), [("training", "service"), ("service", "training")])
def test_training_and_service_do_not_import_each_other(root: Path, package: str, other: str) -> None:
    """The two containers share nothing but the contract, so that each can change and be deployed alone."""
    assert other not in imported(root / package)


def test_artifact_needs_nothing_but_the_standard_library(root: Path) -> None:
    """Whatever reads or writes a model version can do so without installing anything, unless it lies in a store."""
    assert imported(root / "artifact") - sys.stdlib_module_names <= {"artifact", "obstore"}
    users = {file.name for file in (root / "artifact").glob("*.py") if "obstore" in _file_imports(file)}
    assert users == {"store.py"}
    assert "obstore" not in _top_level_imports(root / "artifact" / "store.py")


def test_imaging_needs_artifact_pillow_pi_heif_and_numpy(root: Path) -> None:
    """What decodes pictures for training and service depends on neither, and on nothing that only one of them has."""
    assert imported(root / "imaging") - sys.stdlib_module_names <= {"imaging", "artifact", "PIL", "pi_heif", "numpy"}


def test_machine_needs_nothing_but_the_standard_library(root: Path) -> None:
    """What tells of the machine can be asked before anything is installed; OpenVINO is imported by its name alone."""
    assert imported(root / "machine") - sys.stdlib_module_names <= {"machine", "openvino"}


def test_training_and_client_take_the_same_files_for_pictures(root: Path) -> None:
    """The client imports nothing else of the project, so it has its own copy of the one list and rule."""
    first, second = ((root / package / "pictures.py").read_text(encoding="utf-8") for package in ("artifact", "client"))
    assert first == second


def test_only_training_imports_a_training_framework(root: Path) -> None:
    """The service starts without TensorFlow: keras is nowhere in it, tensorflow in the one engine that is asked for."""
    assert "keras" not in imported(root / "service")
    users = {file.name for file in (root / "service").rglob("*.py") if "tensorflow" in _file_imports(file)}
    assert users <= {"engine.py"}
    assert "tensorflow" not in _top_level_imports(root / "service" / "inference" / "engine.py")


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_every_file_is_in_a_room(root: Path, package: str) -> None:
    """A new folder or file of a package has its place in the order, or it would be held to nothing."""
    found = {module.split(".")[1] for module in graph(root) if module.startswith(f"{package}.")}
    assert found == set(ROOMS[package])


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_import_from_below_only(root: Path, package: str) -> None:
    """Who reads a room has to know those below it, and none above."""
    assert upward(graph(root), package, ROOMS[package]) == []


def upward(imports: Graph, package: str, rooms: tuple[str, ...]) -> list[str]:
    """Return the imports inside ``package`` that lead from a room to one that stands above it in ``rooms``."""
    height = {f"{package}.{room}": number for number, room in enumerate(rooms)}

    def place(module: str) -> int:
        return height.get(".".join(module.split(".")[:2]), -1)  # the package itself is below all

    return [
        f"{module} -> {other}" for module in imports for other in imports[module] if -1 < place(module) < place(other)
    ]


def test_no_circle_of_files(root: Path) -> None:
    """Every file can be read, and tested, before those that import it."""
    assert circle(graph(root)) == []


def circle(imports: Graph) -> list[str]:
    """Return modules that import each other in a ring; none where there is no ring."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_inference_knows_no_http(root: Path) -> None:
    """Pictures become probabilities without a web framework, a server or a metrics library, at any remove."""
    files, imports = modules(root), graph(root)
    reached = {module for module in imports if module.startswith("service.inference")}
    while more := {other for module in reached for other in imports[module]} - reached:
        reached |= more
    packages = {name for module in reached for name in _file_imports(files[module])}
    assert {"numpy", "PIL"} <= packages
    assert not packages & {"flask", "werkzeug", "gunicorn", "gevent", "prometheus_client"}


def test_an_import_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """The rules above see plain imports, imports inside functions and imports by name."""
    (tmp_path / "module.py").write_text(
        "import a.b\nfrom c.d import e\ndef f():\n    import g\n    importlib.import_module('h.i')\n", encoding="utf-8"
    )
    assert imported(tmp_path) == {"a", "c", "g", "h"}


def test_circles_and_wrong_ways_are_found(tmp_path: Path) -> None:
    """The two rules on rooms see a ring of three, and an import inside a function that leads upward."""
    for package in PACKAGES:
        (tmp_path / package / "low").mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    for name, text in {
        "low/__init__": "", "low/one": "def f():\n    from training.high import g\n",
        "high": "import training.low.two\ng = 1\n", "low/two": "from training.low import one\n",
    }.items():  # fmt: skip
        (tmp_path / "training" / f"{name}.py").write_text(text, encoding="utf-8")
    imports = graph(tmp_path)
    assert set(circle(imports)) == {"training.low.one", "training.high", "training.low.two"}
    assert upward(imports, "training", ("low", "high")) == ["training.low.one -> training.high"]


def _file_imports(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in _names_in(file)}


def _top_level_imports(file: Path) -> set[str]:
    module = _parsed(file)
    statements: list[ast.stmt] = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name.partition(".")[0] for name in _names(ast.Module(statements, []))}
