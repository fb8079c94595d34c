"""Object stores that versions are published into."""

from pathlib import Path

from artifact.errors import DAMAGED, MISSING, SourceFails
from artifact.fetching import fetch_newest
from artifact.store import Store
from machine import how_to_install
from training.errors import TrainingError


def open_store(address: str | None, models: Path, name: str) -> Store | None:
    """Open the store at ``address`` and bring the newest version of model ``name`` from it to ``models``.

    Returns None where there is no address. What stands against publishing there is found out now, not after an hour of
    training.

    Raises:
        TrainingError: obstore is not installed.
        SourceFails: the store cannot be read or written.
    """
    if address is None:
        return None
    try:
        store = Store(address)
    except ModuleNotFoundError as missing:
        raise TrainingError(how_to_install(missing, f"--models {address}", "training,sources")) from None
    store.require_writable()
    number = bring_newest(store, models, name)
    if number is not None:
        print(f"The newest version in {store} is {name} version {number}.", flush=True)
    return store


def bring_newest(store: Store, models: Path, name: str) -> int | None:
    """Bring the newest version of model ``name`` from ``store`` to ``models``, and return its number.

    One that is damaged is no reason not to publish a good one: returns None as where there is none. Raises SourceFails
    where the store cannot be read.
    """
    try:
        return fetch_newest(store, models, name)
    except SourceFails as fault:
        if fault.reason not in (DAMAGED, MISSING):
            raise
        print(f"Without the newest version in the store: {fault}.", flush=True)
        return None


def where(store: Store | None, path: Path) -> str:
    """Return where the version is that was published, whose files, or a copy of them, are in folder ``path``."""
    return str(path) if store is None else f"{store}/{path.parent.name}/{path.name}"
