"""The one line that the design draws: training and service meet in artifact, and artifact needs neither."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def imported(folder: Path) -> set[str]:
    """Return the top-level names that the modules below ``folder`` import anywhere, also inside functions."""
    modules = [ast.parse(file.read_text(encoding="utf-8"), file.name) for file in folder.rglob("*.py")]
    assert modules, f"{folder} holds no modules"
    return {name.partition(".")[0] for module in modules for name in _names(module)}


def _names(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides which package is meant"
            yield node.module or ""
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
    """Whatever reads or writes a model version can do so without installing anything."""
    assert imported(root / "artifact") - {"artifact"} <= sys.stdlib_module_names


def test_imaging_needs_artifact_pillow_and_numpy(root: Path) -> None:
    """What decodes pictures for training and service depends on neither, and on nothing that only one of them has."""
    assert imported(root / "imaging") - sys.stdlib_module_names <= {"imaging", "artifact", "PIL", "numpy"}


def test_machine_needs_nothing_but_the_standard_library(root: Path) -> None:
    """What tells of the machine can be asked before anything is installed; OpenVINO is imported by its name alone."""
    assert imported(root / "machine") - sys.stdlib_module_names <= {"machine", "openvino"}


def test_only_training_imports_a_training_framework(root: Path) -> None:
    """The service starts without TensorFlow: keras is nowhere in it, tensorflow in the one engine that is asked for."""
    assert "keras" not in imported(root / "service")
    users = {file.name for file in (root / "service").rglob("*.py") if "tensorflow" in _file_imports(file)}
    assert users <= {"engine.py"}
    assert "tensorflow" not in _top_level_imports(root / "service" / "inference" / "engine.py")


def test_an_import_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """The rules above see plain imports, imports inside functions and imports by name."""
    (tmp_path / "module.py").write_text(
        "import a.b\nfrom c.d import e\ndef f():\n    import g\n    importlib.import_module('h.i')\n", encoding="utf-8"
    )
    assert imported(tmp_path) == {"a", "c", "g", "h"}


def _file_imports(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in _names(ast.parse(file.read_text(encoding="utf-8")))}


def _top_level_imports(file: Path) -> set[str]:
    module = ast.parse(file.read_text(encoding="utf-8"))
    statements: list[ast.stmt] = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name.partition(".")[0] for name in _names(ast.Module(statements, []))}
