"""Layouts that were found by trying, kept as files: one per model, version and machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_shared.contracts.ids import ModelName
from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelLimits, Version
from penstock_shared.runtime.telemetry import log

_LOCK: Final = "tuning.lock"
_DIGEST_CHARACTERS: Final = 16


class LayoutKey(BaseModel):
    """Everything that a layout depends on."""

    model_config = ConfigDict(frozen=True)

    model: ModelName
    version: Version
    kind: ModelKind
    weights_sha256: str
    limits: ModelLimits
    machine: str
    """`Machine.fingerprint`."""
    device: str
    compute_type: str
    engine_version: str

    @property
    def file_name(self) -> str:
        """Says to people whose it is; the digest tells machines and limits apart."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.model}-{self.version}-{digest[:_DIGEST_CHARACTERS]}.json"


class _Kept(BaseModel):
    key: LayoutKey
    layout: ModelLayout


class LayoutStore:
    """Remembers layouts, across restarts if it has a directory.

    A directory that cannot be used costs the tuning of every start, never the start itself.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._known: dict[LayoutKey, ModelLayout] = {}

    def find(self, key: LayoutKey) -> ModelLayout | None:
        """What was found for just this; None for a file that says anything else."""
        if key not in self._known and self._directory is not None:
            try:
                kept = _Kept.model_validate_json((self._directory / key.file_name).read_bytes())
            except (OSError, ValidationError):
                return None
            if kept.key == key:
                self._known[key] = kept.layout
        return self._known.get(key)

    def keep(self, key: LayoutKey, layout: ModelLayout) -> None:
        """Remember it. A reader sees the file whole or not at all, also after a crash."""
        self._known[key] = layout
        if self._directory is None:
            return
        try:
            self._write(self._directory / key.file_name, _Kept(key=key, layout=layout))
        except OSError as error:
            log().warning("layout.not_kept", model=key.model, why=str(error))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else who uses this directory tunes meanwhile: two at once measure each other.

        Waits for as long as another process holds the lock; it is free when that one has died.
        """
        if self._directory is None:
            yield
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log().warning("layout.no_lock", why=str(error))
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _write(file: Path, kept: _Kept) -> None:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w") as temporary:
                temporary.write(kept.model_dump_json(indent=2))
                temporary.flush()
                os.fsync(temporary.fileno())
            Path(name).replace(file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
