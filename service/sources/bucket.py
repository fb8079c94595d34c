"""Models in an object store, as NAME/VERSION/..."""

import functools
import hashlib
from collections.abc import Callable

from artifact.errors import DAMAGED, MISSING, SourceFails
from artifact.fetching import StoredVersion
from artifact.layout import is_number_of_a_version
from artifact.store import Store
from service.inference.plan import MOST_BYTES_OF_PLAN, SERVING_FILE
from service.sources.catalogue import Catalogue, Entry, Model, Version, is_model_name

_MOST_MODELS = 1000


class Bucket:
    """The models below the prefix of a store."""

    def __init__(self, address: str, names: tuple[str, ...] | None, stop: Callable[[], bool]) -> None:
        """Open the store, of whose models those of ``names`` are wanted, or all.

        Raises SourceFails, or ModuleNotFoundError without obstore.
        """
        self._store = Store(address, stop)
        self._names = names

    def __str__(self) -> str:
        """Return the store's address."""
        return str(self._store)

    def look(self, known: str | None) -> Catalogue:
        """List the models and their versions; the files of a version are listed when it is asked for."""
        names = [name for name in self._store.listing().folders if self._is_wanted(name)]
        if len(names) > _MOST_MODELS:
            told = f"{self._store} has more than {_MOST_MODELS:,} models: name those that are served by MODEL_NAMES"
            raise SourceFails(DAMAGED, told)
        found = {name: self._model(name) for name in names}
        models = {name: model for name, model in found.items() if model.versions.numbers}
        if not models:
            raise SourceFails(MISSING, f"{self._store} has no models: a version's files lie in NAME/VERSION/ below it")
        return Catalogue(models)

    def close(self) -> None:
        """Keep what is open: nothing was fetched."""

    def _is_wanted(self, name: str) -> bool:
        return is_model_name(name) and (self._names is None or name in self._names)

    def _model(self, name: str) -> Model:
        listed = self._store.listing(name)
        path = f"{name}/{SERVING_FILE}"
        serving = next((file for file in listed.files if file.path == path), None)
        read = functools.partial(self._store.read, path, MOST_BYTES_OF_PLAN)
        numbers = sorted(int(folder) for folder in listed.folders if is_number_of_a_version(folder))
        return Model(_Versions(self._store, name, numbers), Entry(serving.etag, read) if serving else None)


class _Versions:
    def __init__(self, store: Store, name: str, numbers: list[int]) -> None:
        self._store = store
        self._name = name
        self.numbers = numbers

    def get(self, number: int) -> Version | None:
        offered = StoredVersion(self._store, self._name, number)
        return Version(hashlib.sha256(repr(offered.files).encode()).hexdigest(), offered) if offered.whole else None
