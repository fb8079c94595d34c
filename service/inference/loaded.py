"""What a loaded version of a model is: its files and facts, its engine, and who uses it."""

from dataclasses import dataclass, field
from pathlib import Path

from artifact import Metadata
from artifact.files import Fingerprint, read_regular
from artifact.layout import MODEL_CARD
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.evidence import EvidenceNetwork
from service.inference.pace import Pace

_MOST_CARD = 1024 * 1024  # bytes


@dataclass
class LoadedModel:
    """A version that answers: what it is, and the batcher in front of its engine.

    ``card`` is its model card, in Markdown. ``evidence`` is what explains it, once somebody has asked for that.
    ``revived`` says that it was loaded anew because its engine failed. ``labels`` are what it is called by
    ``serving.json``, and ``shadow`` is the version that answers the same requests for comparison. ``memory`` is what
    loading it took, in bytes.
    """

    name: str
    version: int
    path: Path
    metadata: Metadata
    engine: Engine
    pace: Pace
    batcher: Batcher
    fingerprint: Fingerprint = field(repr=False)
    loaded_at: float  # seconds since the epoch
    loaded: float  # seconds of the clock
    card: str | None = field(repr=False, default=None)
    evidence: EvidenceNetwork | None = field(repr=False, default=None)
    revived: bool = False
    labels: tuple[str, ...] = ()
    shadow: int | None = None
    memory: int = 0
    users: int = 0
    retired: bool = False


def model_card(path: Path) -> str | None:
    """Return the Markdown of the model card in ``path``, a version; None where it has none that can be read."""
    try:
        return read_regular(path / MODEL_CARD, _MOST_CARD).decode()
    except (OSError, UnicodeDecodeError):
        return None
