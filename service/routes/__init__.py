"""The routes, one blueprint per concern. A new protocol is one more file here and one more line below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

from service.routes import health, metrics, model, predict

if TYPE_CHECKING:
    from service.app import Services

_MODULES = (predict, health, model, metrics)


def blueprints(services: Services) -> list[Blueprint]:
    """Return the blueprints of all routes, made with ``services``."""
    return [module.blueprint(services) for module in _MODULES]
