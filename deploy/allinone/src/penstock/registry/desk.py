"""The operator's acts on models: each leaves files and record consistent, wherever it is killed."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.errors import OperatorError
from penstock.models_dir import find_models_dir
from penstock.registry import records
from penstock.registry.addition import Progress, Wish, add_files
from penstock.registry.registry import no_such_model, registry
from penstock.registry.source import Source, inspect
from penstock.registry.states import ask_workers
from penstock.registry.store import ModelStore
from penstock.stack_locator import Connections
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import (
    ModelLimits,
    ModelManifest,
    ModelRecord,
    WorkerModels,
)
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest


@dataclass(frozen=True, slots=True)
class Overview:
    """What is registered, and how it stands in each worker."""

    models: list[ModelRecord]
    workers: list[WorkerModels]


class ModelDesk:
    """Acts on one stack's models."""

    def __init__(
        self,
        connections: Connections,
        environ: Mapping[str, str],
        unix_time_s: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is opened before the first act."""
        self._connections = connections
        self._environ = environ
        self._unix_time_s = unix_time_s

    async def add(
        self, path: Path, wish: Wish, limits: ModelLimits | None, progress: Progress
    ) -> ModelRecord:
        """Put a model into the store and register it; an empty version takes the next number.

        Raises:
            OperatorError: It cannot be served, or this version is there already.
        """
        store = self._store()
        source = inspect(path)
        with store.changing():
            return await self._add(store, source, wish, limits, progress)

    async def overview(self) -> Overview:
        """Read the registry, and ask every worker."""
        async with registry(self._connections.nats_url) as models:
            known = await models.records()
            return Overview(known, await ask_workers(models.broker))

    async def promote(self, name: str, version: str) -> ModelRecord:
        """Let a version serve, and lift the model's quarantine.

        Raises:
            OperatorError: There is no such version, or its files are not on this machine.
        """
        async with registry(self._connections.nats_url) as models:
            records.require_version(await models.get(name), version)
            manifest = self._manifest(name, version)
            return await models.change(name, lambda record: _promoted(name, record, manifest))

    async def remove(self, name: str, version: str | None) -> None:
        """Forget a version, or the whole model; its files go after the record.

        Raises:
            OperatorError: It does not exist, or it is the version that serves.
        """
        store = self._store()
        with store.changing():
            async with registry(self._connections.nats_url) as models:
                if version is None:
                    await models.remove(name)
                else:
                    await models.change(name, lambda record: _without(name, record, version))
            store.delete(name, version)

    async def _add(
        self,
        store: ModelStore,
        source: Source,
        wish: Wish,
        limits: ModelLimits | None,
        progress: Progress,
    ) -> ModelRecord:
        async with registry(self._connections.nats_url) as models:
            standing = await models.find(wish.name)
            wish = replace(wish, version=wish.version or records.next_version(standing))
            _require_new(standing, wish, store)
        # Not connected meanwhile: converting takes minutes.
        manifest = await asyncio.to_thread(add_files, source, wish, store, self._environ, progress)
        async with registry(self._connections.nats_url) as models:
            return await models.change(
                wish.name, lambda record: self._registered(record, manifest, limits)
            )

    def _registered(
        self, record: ModelRecord | None, manifest: ModelManifest, limits: ModelLimits | None
    ) -> ModelRecord:
        fresh = records.with_version(record, manifest, int(self._unix_time_s()))
        return fresh if limits is None else fresh.model_copy(update={"limits": limits})

    def _store(self) -> ModelStore:
        root = self._connections.model_store
        if root is None:
            raise OperatorError(
                "Where models are kept is not known.",
                "Set PENSTOCK_MODEL_STORE to the directory that the workers read, too.",
            )
        return ModelStore(root)

    def _manifest(self, name: str, version: str) -> ModelManifest:
        catalog = ModelCatalog([self._connections.model_store, self._bundled()])
        try:
            place = catalog.find(name, version)
            if place is not None:
                return read_manifest(place)
        except PermanentError as error:
            raise OperatorError(error.message, "Then run the command again.") from error
        raise OperatorError(
            f"The files of {name} {version} are not on this machine.",
            "Run the command where the model store is, or add the version again.",
        )

    def _bundled(self) -> Path | None:
        chosen = self._environ.get("PENSTOCK_MODELS_DIR")
        try:
            return find_models_dir(Path(chosen) if chosen else None)
        except OperatorError:
            return None


def _require_new(standing: ModelRecord | None, wish: Wish, store: ModelStore) -> None:
    registered = standing is not None and wish.version in standing.versions
    if registered and store.version_dir(wish.name, wish.version).is_dir():
        raise OperatorError(
            f"{wish.name} has a version {wish.version} already.",
            "Give another --version, or remove that one first.",
        )


def _promoted(name: str, record: ModelRecord | None, manifest: ModelManifest) -> ModelRecord:
    if record is None:
        raise no_such_model(name)
    return records.promoted(record, manifest)


def _without(name: str, record: ModelRecord | None, version: str) -> ModelRecord:
    if record is None:
        raise no_such_model(name)
    return records.without_version(record, version)
