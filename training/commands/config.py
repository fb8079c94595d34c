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
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.commands.options import Option
from training.errors import TrainingError
from training.fit.recipe import Recipe
from training.publish.configuration import RECIPE, toml

_FIELDS = {field.name for field in dataclasses.fields(Recipe)}
_BELOW_ONE = {"momentum", "warmup", "label_smoothing"}
_AT_MOST_ONE = {"crop", "change", "head_share", "teacher_share"}
_ABOVE_ZERO = {"teacher_temperature"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

Fields = dict[str, Any]
"""Values for fields of ``Recipe`` by their names."""


def read(path: Path, options: Sequence[Option]) -> tuple[dict[str, Any], Fields]:
    """Read a configuration file and return the values of ``options`` by their fields, and those of its [recipe].

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
        fields = _fields(table.pop(RECIPE, {}), options)
        values = _options(table, options)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    if "preset" in fields:
        if "preset" in values:
            raise TrainingError(f"{path}: preset stands twice, as an option and in [{RECIPE}]; leave one out")
        values["preset"] = fields["preset"]
    return values, fields


def repeatable(options: Iterable[Option], values: Mapping[str, object]) -> dict[str, object]:
    """Return, by the names in a file, the ``values`` of those ``options`` that repeat a run; the recipe has the others.

    Where the run puts things is no part of it, nor is what makes no difference to its result.
    """
    repeated = (option for option in options if option.part_of_run and option.field not in _FIELDS)
    return {option.name: _given(option, values[option.field]) for option in repeated}


def _given(option: Option, value: object) -> object:
    """Return ``value``, None in place of that of a switch which can only be turned on and is not."""
    return None if option.switch and not option.negatable and not value else value


def _options(table: Mapping[str, Any], options: Iterable[Option]) -> dict[str, Any]:
    allowed = {option.name: option for option in options if option.in_file}
    values = {}
    for key, value in table.items():
        if key not in allowed:
            raise TrainingError(f"there is no option {key}; allowed are {', '.join(sorted(allowed))} and [{RECIPE}]")
        values[allowed[key].field] = _option(key, value, allowed[key])
    return values


def _option(key: str, value: Any, option: Option) -> Any:
    """Return ``value`` as the command line would give it to ``option``."""
    if option.switch:
        return _plain(key, value, bool)
    if option.several:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise TrainingError(f"{key} must have at least one value")
        return [_single(key, each, option) for each in values]
    return _single(key, value, option)


def _single(key: str, value: Any, option: Option) -> Any:
    """Return ``value`` as one argument of ``option`` on the command line would be."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TrainingError(f"{key} must be {_allowed(option, value)}, not {_shown(value)}")
    try:
        parsed = option.kind(str(value))
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise TrainingError(f"{key}: {error}") from error
    number_as_text = isinstance(value, str) and isinstance(parsed, int | float)
    text_as_number = isinstance(value, int | float) and isinstance(parsed, str | Path)
    if number_as_text or text_as_number or (option.choices is not None and parsed not in option.choices):
        raise TrainingError(f"{key} must be {_allowed(option, parsed)}, not {_shown(value)}")
    return parsed


def _allowed(option: Option, parsed: Any) -> str:
    """Say what an option takes; ``parsed`` is what it made of a value, of the kind that it takes."""
    if option.choices is not None:
        return f"one of {', '.join(option.choices)}"
    return "text" if option.kind is str else _WORDS.get(type(parsed), "text")


def _fields(table: Any, options: Iterable[Option]) -> Fields:
    if not isinstance(table, dict):
        raise TrainingError(f"{RECIPE} must be a table, [{RECIPE}]")
    hints = get_type_hints(Recipe)
    of_field = {option.field: option for option in options if option.field != "preset"}  # an old one may be gone
    fields = {}
    for name, value in table.items():
        if name not in hints:
            raise TrainingError(f"[{RECIPE}] has no field {name}; allowed are {', '.join(sorted(hints))}")
        key = f"[{RECIPE}] {name}"
        fields[name] = _option(key, value, of_field[name]) if name in of_field else _field(key, value, hints[name])
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
    return toml(value) if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
