"""The modules that protoc makes of the messages of gRPC."""

import subprocess
from pathlib import Path

import pytest


@pytest.mark.process
def test_modules_are_what_the_messages_make(root: Path, tmp_path: Path) -> None:
    """Whoever changes a .proto file has run ``make protos``."""
    python = root / ".venv-interop" / "bin" / "python"
    if not python.exists():
        pytest.skip("make .venv-interop/stamp installs protoc")
    folder = Path("service") / "protocols" / "grpc"
    files = sorted(str(file.relative_to(root)) for file in (root / folder).glob("*.proto"))
    command = [str(python), "-m", "grpc_tools.protoc", "--proto_path=.", f"--python_out={tmp_path}", *files]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_text() for file in (tmp_path / folder).iterdir()}
    assert len(made) == len(files) == 3
    assert made == {file.name: file.read_text() for file in (root / folder).glob("*_pb2.py")}
