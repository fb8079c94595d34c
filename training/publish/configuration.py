"""The configuration file that a version carries: the options of its training and its recipe in TOML, to repeat it.

``training.commands.config`` reads such files.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.fit.recipe import Recipe

FILE = "config.toml"
RECIPE = "recipe"
"""The name of the table that has the recipe's fields."""


def write(options: Mapping[str, object], recipe: Recipe, changed: str = "") -> str:
    """Return the file that repeats a run with these values of ``options``, by their names, and this recipe.

    What is None is the default. ``changed`` says in words what was changed while the run went on, which no
    file repeats.
    """
    lines = ["# darkroom train --config THIS_FILE repeats the run."]
    if changed:
        lines.append(f"# It was changed while it ran, which is not repeated: {changed}.")
    lines += [f"{name} = {toml(value)}" for name, value in options.items() if value is not None]
    lines += ["", f"[{RECIPE}]"]
    lines += [f"{name} = {toml(value)}" for name, value in asdict(recipe).items() if value is not None]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """Return a plain value in TOML: numbers, strings, truth values and lists are written as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Path):
        value = str(value).encode(errors="replace").decode()  # a name that is no text cannot be in the file
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
