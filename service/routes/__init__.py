"""The routes, one module per concern. A new protocol is one more file here.

Every module has ``blueprint(services)``; one whose clients expect errors in a form of their own has a ``DIALECT``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

from flask import Blueprint

from service.errors import Dialect

if TYPE_CHECKING:
    from service.app import Services


def blueprints(services: Services) -> list[Blueprint]:
    """Return the blueprints of all routes, made with ``services``."""
    return [module.blueprint(services) for module in _modules()]


def dialects() -> list[Dialect]:
    """Return the forms in which the protocols tell errors."""
    return [module.DIALECT for module in _modules() if hasattr(module, "DIALECT")]


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
