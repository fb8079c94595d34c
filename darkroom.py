#!/usr/bin/env python3
"""The command ``darkroom``: one name for the service, the trainer and the client, each run in the environment it needs.

It needs only the standard library of Python 3.8 or later, so that any ``python3`` can start it in a fresh clone.
"""

import difflib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, NoReturn, Optional, Sequence  # noqa: UP035 - Python 3.8 has no dict[str, str]

ROOT = Path(__file__).resolve().parent

_USAGE = 2
_SAVED_MODEL = "saved_model.pb"  # what makes a folder a model version


class Part(NamedTuple):
    """A part of Darkroom, and where what it needs is installed."""

    module: str  # that ``python -m`` runs
    extra: str  # of the package, for ``pip install 'darkroom[EXTRA]'``
    needs: Sequence[str]  # modules that only this extra brings
    environments: Sequence[str]  # of a clone that have all of it; the first is made where none is there


SERVICE = Part("service", "service", ("gunicorn", "openvino"), (".venv-serve", ".venv"))
TRAINING = Part("training", "training,cpu", ("keras", "sklearn", "tensorflow"), (".venv",))
CLIENT = Part("client", "client", ("requests", "tqdm"), (".venv-client", ".venv"))

_LOCKS = {".venv": "dev.txt", ".venv-client": "client.txt", ".venv-serve": "service.txt"}


class Command(NamedTuple):
    """What a command runs, and what ``--help`` says of it."""

    part: Part
    arguments: Sequence[str]  # of the module, in front of what the user gives
    does: str


GROUPS: Dict[str, Dict[str, Command]] = {  # noqa: UP006
    "serve and ask": {
        "serve": Command(SERVICE, (), "answer over HTTP, with the models in ./models or the bundled one"),
        "predict": Command(
            CLIENT, ("predict",), "classify pictures: ask a service, or a version: predict VERSION PATH"
        ),
        "explain": Command(CLIENT, ("explain",), "draw which parts of pictures spoke for a label"),
        "model": Command(CLIENT, ("model",), "say which model a service answers with"),
    },
    "train": {
        "check": Command(TRAINING, ("check",), "find duplicates, wrong labels and bad pictures in a folder"),
        "train": Command(TRAINING, (), "train on a folder of pictures and publish a version"),
        "import": Command(TRAINING, ("import",), "publish a pretrained network as it is"),
        "quantize": Command(TRAINING, ("quantize",), "publish a version again, with an int8 network"),
        "study": Command(TRAINING, ("study",), "repeat the study that the project began with"),
    },
    "look at versions": {
        "evaluate": Command(TRAINING, ("evaluate",), "measure a version on labelled pictures"),
        "compare": Command(TRAINING, ("compare",), "tell which of two versions is better"),
        "report": Command(TRAINING, ("report",), "make a page on a version, or on what changed between two"),
        "export": Command(TRAINING, ("export",), "write a version for ONNX Runtime or LiteRT"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

_COMPLETION = """\
_darkroom() {
    local choices
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="COMMANDS completion --help --version"
    elif [[ $2 == -* ]]; then
        choices=$("$1" "${COMP_WORDS[1]}" --help 2>/dev/null | grep -oE -- '--[a-z][a-z0-9-]+' | sort -u)
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$2"))
}
complete -o default -F _darkroom darkroom
"""
_FOR_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def main() -> None:
    """Run what the command line says."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("--help", "-h", "help"):
        print(_help())
    elif name == "--version":
        print(f"darkroom {_version()}")
    elif name == "completion":
        print(_completion(arguments), end="")
    elif name in COMMANDS:
        _run(name, COMMANDS[name], arguments)
    else:
        _fail(f"darkroom: there is no command {name!r}.{_guess(name)} `darkroom --help` lists all.")


def _help() -> str:
    lines = [
        "usage: darkroom COMMAND [options]",
        "",
        "Train an image classifier on a folder of pictures, and serve it.",
    ]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}  {command.does}" for name, command in commands.items())]
    lines += [
        "",
        "`darkroom COMMAND --help` explains a command. `darkroom --version` prints the version.",
        'Completion in bash or zsh: eval "$(darkroom completion bash)", or zsh.',
    ]
    return "\n".join(lines)


def _version() -> str:
    from service import __version__

    return __version__


def _completion(arguments: Sequence[str]) -> str:
    if list(arguments) not in (["bash"], ["zsh"]):
        _fail("darkroom: name the shell: darkroom completion bash, or darkroom completion zsh")
    script = _COMPLETION.replace("COMMANDS", " ".join(COMMANDS))
    return _FOR_ZSH + script if arguments[0] == "zsh" else script


def _guess(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f" Do you mean {close[0]!r}?" if close else ""


def _run(name: str, command: Command, arguments: List[str]) -> NoReturn:  # noqa: UP006
    """Become the module of ``command``, in an environment that has what it needs."""
    part, first = command.part, command.arguments
    if name == "predict" and arguments and (Path(arguments[0]) / _SAVED_MODEL).is_file():
        part = TRAINING
    python = _interpreter(name, part)
    # Modules come from where this file is, never from the current folder, which may have a `service.py` of its own.
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    sys.stdout.flush()
    os.execve(python, [python, "-m", part.module, *first, *arguments], environment)  # noqa: S606 - there is no shell


def _interpreter(name: str, part: Part) -> str:
    """Return the Python that has what ``part`` needs; make an environment of the clone where there is none."""
    ready = [folder for folder in part.environments if _is_ready(folder)]
    if ready:
        return str(ROOT / ready[0] / "bin" / "python")
    if not [module for module in part.needs if importlib.util.find_spec(module) is None]:
        return sys.executable
    if not _in_a_clone():
        _fail(f"darkroom {name} needs: pip install 'darkroom[{part.extra}]'")
    return _made(name, part.environments[0])


def _in_a_clone() -> bool:
    return (ROOT / "Makefile").is_file() and (ROOT / "requirements").is_dir()


def _is_ready(folder: str) -> bool:
    """Say whether an environment of the clone has just what its lock says; its stamp is a copy of that."""
    stamp, lock = ROOT / folder / "stamp", ROOT / "requirements" / _LOCKS[folder]
    return stamp.is_file() and lock.is_file() and stamp.read_bytes() == lock.read_bytes()


def _made(name: str, folder: str) -> str:
    make: Optional[str] = shutil.which("make")  # noqa: UP045 - Python 3.8
    if make is None:
        _fail(f"darkroom {name} needs make, which installs what it takes into {folder}; install make and try again")
    command = [make, "--silent", "--directory", str(ROOT), f"{folder}/stamp"]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code:
        sys.exit(code)
    return str(ROOT / folder / "bin" / "python")


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(_USAGE)


if __name__ == "__main__":
    main()
