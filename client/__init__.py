"""The client: classifies pictures with a Darkroom service, from the command line or from Python.

It needs only requests and tqdm, and nothing of the service.
"""

from client.api import Client
from client.results import Busy, Model, Prediction, Refused, RequestFailed, Result, TooLarge, Unreachable

__all__ = ["Busy", "Client", "Model", "Prediction", "Refused", "RequestFailed", "Result", "TooLarge", "Unreachable"]
