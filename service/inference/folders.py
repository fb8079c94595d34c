"""What lies in the model folder: the model that is served where none was chosen, and why there is none to serve."""

from collections.abc import Sequence
from pathlib import Path

from artifact import models_in, passed_over
from artifact.layout import SAVED_MODEL

BUNDLED = "cifar10"  # the model that the project comes with

_MOST_NAMED = 5


class AmbiguousModel(Exception):
    """There are several models and none was chosen."""


def default_model(models: Path, names: Sequence[str]) -> str | None:
    """Return which of ``names`` in folder ``models`` answers where a request names none; None where there are none.

    Among several it is the bundled one, so that training a second model changes nothing for who uses the first.

    Raises:
        AmbiguousModel: there are several, and the bundled one is not among them.
    """
    if len(names) > 1 and BUNDLED not in names:
        raise AmbiguousModel(f"{models} holds several models: {', '.join(names)}; name one, or set MODEL_NAME")
    return BUNDLED if BUNDLED in names else next(iter(names), None)


def no_model(models: Path) -> str:
    """Return the sentence that there is no model in folder ``models``, and what may be meant instead.

    Raises:
        OSError: the folder cannot be read.
    """
    guess = _guess(models)
    done = "" if guess else "; train one or mount a folder that has one"
    return f"There is no model in the folder {models}{done}.{guess}"


def no_version(models: Path, name: str) -> str:
    """Return the sentence that model ``name`` in folder ``models`` has no version, and what may be meant instead.

    Raises:
        OSError: the folder cannot be read.
    """
    told = f"There is no version of {name} in the folder {models / name}."
    if (models / name / SAVED_MODEL).exists():
        return f"{told} The folder is a version itself; move it to {models / name / '1'}."
    if passed := passed_over_in_words(models, name):
        return f"{told} Passed over: {passed}; a version is a folder with a whole number for a name."
    if (models / name).is_dir():
        return told
    others = models_in(models)
    return told + (f" There is {', '.join(others)}; set MODEL_NAME." if others else _guess(models))


def passed_over_in_words(models: Path, name: str) -> str:
    """Return what lies among the versions of model ``name`` and is none, and why; empty where there is nothing.

    Raises:
        OSError: the folder cannot be read.
    """
    found = [f"{entry} ({why})" for entry, why in passed_over(models, name).items()]
    more = [f"{len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
    return ", ".join(found[:_MOST_NAMED] + more)


def _guess(models: Path) -> str:
    """Return a sentence on the folder that may be meant by ``models``, which has no model; empty where none may be."""
    if not models.is_dir():
        return ""
    if (models / SAVED_MODEL).exists():
        return (
            f" The folder is a version itself; its place is MODEL_DIR/NAME/1, so move it to {models / 'model' / '1'}."
        )
    whole = models.absolute()
    if whole.name in models_in(whole.parent):
        return f" Did you mean MODEL_DIR={whole.parent} and MODEL_NAME={whole.name}?"
    for entry in sorted(passed_over(models, "")):
        if names := _models_in(models / entry):
            return f" Did you mean MODEL_DIR={models / entry}, which has {', '.join(names[:_MOST_NAMED])}?"
        if (models / entry / SAVED_MODEL).exists():
            return f" {models / entry} is a version itself; move it to {models / entry / '1'}."
        if passed := _passed_over(models, entry):
            return f" Passed over in {models / entry}: {passed}; a version is a folder with a whole number for a name."
    return ""


def _models_in(folder: Path) -> list[str]:
    try:
        return models_in(folder)
    except OSError:
        return []


def _passed_over(models: Path, name: str) -> str:
    try:
        return passed_over_in_words(models, name)
    except OSError:
        return ""
