"""``GET /model``: what is served, what else is there, and what is kept out."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify

from artifact.layout import MODEL_CARD
from service.registry import LoadedModel

if TYPE_CHECKING:
    from service.app import Services

# Checksums are for validation; name and version are the folder's, which is what clients and TensorFlow Serving go by.
_NOT_SHOWN = ("files", "name", "version")


def blueprint(services: Services) -> Blueprint:
    """Return the route that describes the model."""
    routes = Blueprint("model", __name__)

    @routes.get("/model")
    def model() -> Response:
        """Describe the version that answers; null where there is none, with the reason."""
        registry = services.registry
        current = registry.current
        return jsonify(
            name=registry.name,
            version=current.version if current else None,
            reason=None if current else registry.reason,
            pinned=registry.pin is not None,
            versions=registry.available,
            refused=[{"version": refusal.version, "reason": refusal.reason} for refusal in registry.refused],
            **(_description(current) if current else {}),
        )

    return routes


def _description(model: LoadedModel) -> dict[str, Any]:
    metadata = dataclasses.asdict(model.metadata)
    return {
        "loaded": datetime.fromtimestamp(model.loaded_at, UTC).isoformat(timespec="seconds"),
        "engine": {"name": model.engine.name, "precision": model.engine.precision},
        **{key: value for key, value in metadata.items() if key not in _NOT_SHOWN},
        "model_card": _model_card(model),
    }


def _model_card(model: LoadedModel) -> str | None:
    """Return the model card's Markdown; None where the version has none or was removed meanwhile."""
    try:
        return (model.path / MODEL_CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
