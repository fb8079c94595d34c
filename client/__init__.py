"""The client: classifies pictures with a Darkroom service, from the command line or from Python.

It needs only requests and tqdm, and nothing of the service. They are imported with the first name that is taken from
here, so that the command can say what is missing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.api import Client
    from client.results import Busy, Model, Prediction, Refused, RequestFailed, Result, TooLarge, Unreachable

__all__ = ["Busy", "Client", "Model", "Prediction", "Refused", "RequestFailed", "Result", "TooLarge", "Unreachable"]


def __getattr__(name: str) -> Any:
    """Return what is listed above, imported now (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("client.api" if name == "Client" else "client.results"), name)
