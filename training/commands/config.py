"""The configuration file: the options of a training and its recipe in TOML, so that a run can be repeated.

    data = "cifar-10-python.tar.gz"
    validation-images = 5000

    [recipe]
    preset = "standard"
    epochs = 28

What stands above the tables are the options of the command line without their dashes, and the command line wins over
them. ``[recipe]`` sets fields of ``training.fit.recipe.Recipe``. Where it carries the name of a ``preset``, it is a
recipe of its own: what it leaves out is as in ``Recipe``, whatever the preset of that name is now; so are the files
that published versions carry. Without one, it changes the preset that the option ``preset`` names.
"""

import argparse
import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.errors import TrainingError
from training.fit.recipe import Recipe

FILE = "config.toml"

_RECIPE = "recipe"
_FIELDS = {field.name for field in dataclasses.fields(Recipe)}
_ONLY_ON_THE_COMMAND_LINE = {"help", "config", "fresh"}
_NO_PART_OF_A_RUN = _ONLY_ON_THE_COMMAND_LINE | {"models", "run", "cache", "publish_anyway", "cpu"}
_BELOW_ONE = {"momentum", "warmup", "label_smoothing"}
_AT_MOST_ONE = {"crop", "change", "head_share", "teacher_share"}
_ABOVE_ZERO = {"teacher_temperature"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

Fields = dict[str, Any]
"""Values for fields of ``Recipe`` by their names."""


def read(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read a configuration file and return the values of options by their ``dest``, and ``recipe_fields``.

    Raises:
        TrainingError: it cannot be read, or a key or a value is none of those allowed; the message names it.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise TrainingError(f"{path} is not a TOML file: {error}") from error
    try:
        fields = _fields(table.pop(_RECIPE, {}), parser)
        values = _options(table, parser)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    if "preset" in fields:
        if "preset" in values:
            raise TrainingError(f"{path}: preset stands twice, as an option and in [{_RECIPE}]; leave one out")
        values["preset"] = fields["preset"]
    return {**values, "recipe_fields": fields}


def own_recipe(options: argparse.Namespace) -> Recipe | None:
    """Return the recipe that a configuration file has in full, with what the options change; None where it has none.

    Where the command line names another preset than the file, that takes the recipe's place.
    """
    fields: Fields = options.recipe_fields
    if "preset" not in fields or fields["preset"] != options.preset:
        return None
    return Recipe(**{**fields, **_given(options)})


def with_fields(chosen: Recipe, options: argparse.Namespace) -> Recipe:
    """Return ``chosen`` with the fields that a configuration file changes and no option gives."""
    fields: Fields = options.recipe_fields
    if "preset" in fields:
        return chosen
    return dataclasses.replace(chosen, **{**fields, **_given(options)})


def _given(options: argparse.Namespace) -> Fields:
    """Return the options that are fields of a recipe and were given."""
    values = {name: getattr(options, name, None) for name in _FIELDS - {"preset"}}
    return {name: value for name, value in values.items() if value is not None}


def write(
    parser: argparse.ArgumentParser, options: argparse.Namespace, chosen: Recipe, changed: str = "", **found: str
) -> str:
    """Return the configuration file that repeats a run with these ``options`` of ``parser`` and this recipe.

    ``found`` has the values of options that the run found out, ``changed`` says in words what was changed while it ran,
    which no file repeats. Where the run puts things is no part of it, nor is what makes no difference to its result.
    """
    values = {**vars(options), **found}
    lines = ["# python -m training --config THIS_FILE repeats the run."]
    if changed:
        lines.append(f"# It was changed while it ran, which is not repeated: {changed}.")
    for action in parser._actions:  # argparse has no public list
        value = values.get(action.dest)
        if action.dest not in _NO_PART_OF_A_RUN | _FIELDS and value not in (None, False):
            lines.append(f"{_key(action)} = {_toml(value)}")
    lines += ["", f"[{_RECIPE}]"]
    lines += [f"{name} = {_toml(value)}" for name, value in dataclasses.asdict(chosen).items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a plain value in TOML: numbers, strings, truth values and lists are written as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Path):
        value = str(value).encode(errors="replace").decode()  # a name that is no text cannot be in the file
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _options(table: Mapping[str, Any], parser: argparse.ArgumentParser) -> dict[str, Any]:
    actions = {_key(action): action for action in parser._actions if action.dest not in _ONLY_ON_THE_COMMAND_LINE}
    values = {}
    for key, value in table.items():
        if key not in actions:
            raise TrainingError(f"there is no option {key}; allowed are {', '.join(sorted(actions))} and [{_RECIPE}]")
        values[actions[key].dest] = _option(key, value, actions[key])
    return values


def _key(action: argparse.Action) -> str:
    return max(action.option_strings, key=len, default="").lstrip("-")


def _option(key: str, value: Any, action: argparse.Action) -> Any:
    """Return ``value`` as the command line would give it to ``action``."""
    if action.nargs == 0:
        return _plain(key, value, bool)
    if action.nargs == "+":
        values = value if isinstance(value, list) else [value]
        if not values:
            raise TrainingError(f"{key} must have at least one value")
        return [_single(key, each, action) for each in values]
    return _single(key, value, action)


def _single(key: str, value: Any, action: argparse.Action) -> Any:
    """Return ``value`` as one argument of ``action`` on the command line would be."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TrainingError(f"{key} must be {_allowed(action, value)}, not {_shown(value)}")
    try:
        parsed = action.type(str(value)) if callable(action.type) else str(value)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise TrainingError(f"{key}: {error}") from error
    number_as_text = isinstance(value, str) and isinstance(parsed, int | float)
    text_as_number = isinstance(value, int | float) and isinstance(parsed, str | Path)
    if number_as_text or text_as_number or (action.choices is not None and parsed not in action.choices):
        raise TrainingError(f"{key} must be {_allowed(action, parsed)}, not {_shown(value)}")
    return parsed


def _allowed(action: argparse.Action, parsed: Any) -> str:
    """Say what an option takes; ``parsed`` is what it made of a value, of the kind that it takes."""
    if action.choices is not None:
        return f"one of {', '.join(map(str, action.choices))}"
    return _WORDS.get(type(parsed), "text") if callable(action.type) else "text"


def _fields(table: Any, parser: argparse.ArgumentParser) -> Fields:
    if not isinstance(table, dict):
        raise TrainingError(f"{_RECIPE} must be a table, [{_RECIPE}]")
    hints = get_type_hints(Recipe)
    options = {action.dest: action for action in parser._actions if action.dest != "preset"}  # an old one may be gone
    fields = {}
    for name, value in table.items():
        if name not in hints:
            raise TrainingError(f"[{_RECIPE}] has no field {name}; allowed are {', '.join(sorted(hints))}")
        key = f"[{_RECIPE}] {name}"
        fields[name] = _option(key, value, options[name]) if name in options else _field(key, value, hints[name])
        if name in _BELOW_ONE and value >= 1:
            raise TrainingError(f"{key} must be below 1, not {value}")
        if name in _AT_MOST_ONE and value > 1:
            raise TrainingError(f"{key} must be at most 1, not {value}")
        if name in _ABOVE_ZERO and value <= 0:
            raise TrainingError(f"{key} must be above 0, not {value}")
    return fields


def _field(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as a field of the type ``hint`` holds it."""
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value:
            raise TrainingError(f"{name} must be a list, not {_shown(value)}")
        if 0 in value:
            raise TrainingError(f"{name} must hold numbers from 1")
        return tuple(_field(name, item, get_args(hint)[0]) for item in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise TrainingError(f"{name} must be one of {', '.join(map(str, get_args(hint)))}, not {_shown(value)}")
        return value
    kind = next((each for each in get_args(hint) if each is not NoneType), hint)  # int of int | None
    return _plain(name, value, kind)


def _plain(name: str, value: Any, kind: type) -> Any:
    """Check that ``value`` is of ``kind``, where a whole number is a number, too, and truth is none."""
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise TrainingError(f"{name} must be {_WORDS[kind]}, not {_shown(value)}")
    if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
        raise TrainingError(f"{name} must be a number from 0, not {value}")
    return kind(value)


def _shown(value: Any) -> str:
    return _toml(value) if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
