"""Where things lie: ``<models>/<name>/<version>/``, integer versions, the highest is the latest."""

from pathlib import Path

SAVED_MODEL = "saved_model.pb"
EXTRA = "assets.extra"
METADATA = f"{EXTRA}/metadata.json"
MODEL_CARD = f"{EXTRA}/MODEL_CARD.md"
REPORT = f"{EXTRA}/report.html"  # a page of its own; the service shows what is in its <style> and its <main>
INT8_MODEL = f"{EXTRA}/int8/model.xml"  # OpenVINO IR of the quantised network, where there is one
INT8_WEIGHTS = f"{EXTRA}/int8/model.bin"


def versions(models: Path, name: str) -> list[int]:
    """Return the versions of model ``name`` under ``models`` in ascending order; empty where there are none.

    Only folders whose name is a positive integer without leading zeros count, as in TensorFlow Serving.
    """
    folder = models / name
    if not folder.is_dir():
        return []
    found = (int(entry.name) for entry in folder.iterdir() if _is_version(entry))
    return sorted(found)


def latest(models: Path, name: str) -> int | None:
    """Return the highest version of model ``name`` under ``models``, or None where there is none."""
    return max(versions(models, name), default=None)


def version_path(models: Path, name: str, version: int) -> Path:
    """Return the folder of one version, whether or not it exists."""
    return models / name / str(version)


def _is_version(entry: Path) -> bool:
    name = entry.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and entry.is_dir()
