"""From a model's record to a model that runs: files, checksums, layout, engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import (
    Engine,
    ModelKind,
    ModelLayout,
    ModelManifest,
    ModelRecord,
)
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest, verify
from penstock_worker.adapters.ctranslate2_devices import Target
from penstock_worker.adapters.ctranslate2_encoder import CTranslate2Encoder
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.adapters.ctranslate2_translator import CTranslate2Translator
from penstock_worker.adapters.ctranslate2_weights import read_shape
from penstock_worker.adapters.echo_engine import ECHO_RECORD, EchoEngine
from penstock_worker.adapters.engine_trial import EmbeddingTrial, TextTrial
from penstock_worker.adapters.layout_store import LayoutKey, LayoutStore
from penstock_worker.adapters.machine import Machine
from penstock_worker.adapters.tuner import Trial, Tuner
from penstock_worker.domain.batching import context_budget_tokens
from penstock_worker.domain.memory import need_bytes, need_of_unknown_bytes
from penstock_worker.domain.resident import Resident
from penstock_worker.domain.tuning import SearchSpace, candidates

_WEIGHTS: Final = "model.bin"
_KEY_AND_VALUE: Final = 2
_FLOAT32_BYTES: Final = 4


class DiskShelf:
    """`ModelShelf` on directories of this machine."""

    def __init__(
        self,
        catalog: ModelCatalog,
        layouts: LayoutStore,
        tuner: Tuner,
        target: Target,
        machine: Machine,
    ) -> None:
        self._catalog = catalog
        self._layouts = layouts
        self._tuner = tuner
        self._target = target
        self._machine = machine

    def has(self, record: ModelRecord) -> bool:
        """Whether the version that serves is here."""
        return self._catalog.find(record.name, record.version) is not None

    def memory_bytes(self, record: ModelRecord) -> int:
        """What it is taken to need, in the layout that is known or likely.

        Raises:
            PermanentError: its files are not what they should be, or not here.
        """
        directory, manifest = self._found(record)
        likely = self._layouts.find(self._key(record, manifest)) or self._space(record).layouts[0]
        return self._need(directory, record, likely)

    def load(self, record: ModelRecord) -> Resident:
        """Verify, tune, load and warm up.

        Raises:
            PermanentError: it cannot be run; the message says why and what to do.
            EngineMemoryError: it does not fit into memory.
        """
        directory, manifest = self._found(record)
        verify(directory, manifest)
        layout = self._tuner.layout(
            self._key(record, manifest),
            self._space(record),
            lambda layout: _trial(directory, manifest, layout),
        )
        return Resident(
            name=record.name,
            version=record.version,
            kind=record.kind,
            engine=_engine(directory, manifest, layout),
            layout=layout,
            memory_bytes=self._need(directory, record, layout),
            context_budget_tokens=_context_budget_tokens(directory, layout),
        )

    def _found(self, record: ModelRecord) -> tuple[Path, ModelManifest]:
        directory = self._catalog.find(record.name, record.version)
        if directory is None:
            msg = (
                f"Version {record.version} of {record.name} is in none of this worker's "
                "directories: add it there, or promote a version that is."
            )
            raise PermanentError(msg, code="model_not_here")
        return directory, read_manifest(directory)

    def _space(self, record: ModelRecord) -> SearchSpace:
        return candidates(
            self._machine.processors,
            self._target.device,
            record.kind,
            record.limits,
            self._compute_type(record),
        )

    def _compute_type(self, record: ModelRecord) -> str:
        """Sentence vectors stay whole: in int8 all-MiniLM-L6-v2's are off by up to 0.03."""
        return "float32" if record.kind is ModelKind.EMBEDDING else self._target.compute_type

    def _key(self, record: ModelRecord, manifest: ModelManifest) -> LayoutKey:
        return LayoutKey(
            model=record.name,
            version=record.version,
            kind=record.kind,
            weights_sha256=manifest.sha256.get(_WEIGHTS, ""),
            limits=record.limits,
            machine=self._machine.fingerprint,
            device=self._target.device,
            compute_type=self._compute_type(record),
            engine_version=self._target.engine_version,
        )

    def _need(self, directory: Path, record: ModelRecord, layout: ModelLayout) -> int:
        if record.limits.memory_bytes is not None:
            return record.limits.memory_bytes
        weights = directory / _WEIGHTS
        shape = read_shape(weights)
        if shape is None:
            stored = weights.stat().st_size if weights.is_file() else record.size_bytes
            return need_of_unknown_bytes(stored, layout)
        return need_bytes(shape, layout, record.context_tokens)


class ShelfWithEcho:
    """A shelf that has the echo, too; it needs no files."""

    def __init__(self, shelf: DiskShelf, *, tokens_per_s: float) -> None:
        self._shelf = shelf
        self._tokens_per_s = tokens_per_s

    def has(self, record: ModelRecord) -> bool:
        """Whether the version that serves is here."""
        return record.engine is Engine.ECHO or self._shelf.has(record)

    def memory_bytes(self, record: ModelRecord) -> int:
        """What it will need."""
        return 0 if record.engine is Engine.ECHO else self._shelf.memory_bytes(record)

    def load(self, record: ModelRecord) -> Resident:
        """An echo, or what the shelf has."""
        if record.engine is not Engine.ECHO:
            return self._shelf.load(record)
        engine = EchoEngine(tokens_per_s=self._tokens_per_s)
        return Resident(
            name=record.name,
            version=record.version,
            kind=ECHO_RECORD.kind,
            engine=engine,
            layout=engine.layout,
            memory_bytes=0,
        )


def _context_budget_tokens(directory: Path, layout: ModelLayout) -> int | None:
    shape = read_shape(directory / _WEIGHTS)
    if shape is None or layout.device != "cpu":
        return None
    cache_token_bytes = _KEY_AND_VALUE * shape.caches * shape.key_value_width * _FLOAT32_BYTES
    return context_budget_tokens(shape.stored_bytes, cache_token_bytes)


def _engine(
    directory: Path, manifest: ModelManifest, layout: ModelLayout
) -> CTranslate2Engine | CTranslate2Encoder | CTranslate2Translator:
    if manifest.kind is ModelKind.EMBEDDING:
        return CTranslate2Encoder(directory, manifest, layout)
    if manifest.kind is ModelKind.TRANSLATION:
        return CTranslate2Translator(directory, manifest, layout)
    return CTranslate2Engine(directory, manifest, layout)


def _trial(directory: Path, manifest: ModelManifest, layout: ModelLayout) -> Trial:
    engine = _engine(directory, manifest, layout)
    if isinstance(engine, CTranslate2Encoder):
        return EmbeddingTrial(engine)
    return TextTrial(engine, manifest.kind)
