"""The model files of a machine: which versions lie where, and whether they are what they say.

Two layouts, told apart by depth: `<dir>/<name>/penstock.json` holds a model that came with the
installation, `<dir>/<name>/<version>/penstock.json` one that an operator added. The `models`
bucket says which models there are; a catalog says only where their files lie on this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelManifest, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import Clock, SystemClock
from penstock_shared.runtime.kv import last_entry, put
from penstock_shared.runtime.telemetry import log

MANIFEST: Final = "penstock.json"
"""Written last: a directory that has it is whole."""

_SEED_ATTEMPTS: Final = 5
_CLOCK: Final = SystemClock()


class ModelCatalog:
    """The models below some directories; earlier ones win. Directories may be absent."""

    def __init__(self, dirs: Iterable[Path | None]) -> None:
        self._dirs = tuple(directory for directory in dirs if directory is not None)

    def find(self, name: str, version: str) -> Path | None:
        """Where this version lies; None when it is not on this machine.

        Raises:
            PermanentError: its manifest is unreadable.
        """
        for directory in self._dirs:
            for place in (directory / name / version, directory / name):
                if (place / MANIFEST).is_file():
                    manifest = read_manifest(place)
                    if (manifest.name, manifest.version) == (name, version):
                        return place
        return None

    def bundled(self) -> list[tuple[Path, ModelManifest]]:
        """Those that came with the installation; unreadable ones are logged."""
        found: list[tuple[Path, ModelManifest]] = []
        for directory in self._dirs:
            for path in sorted(directory.glob(f"[!.]*/{MANIFEST}")):  # "." is an unfinished copy
                try:
                    found.append((path.parent, read_manifest(path.parent)))
                except PermanentError as error:
                    log().error("model.manifest_invalid", path=str(path), message=error.message)
        return found


def read_manifest(directory: Path) -> ModelManifest:
    """Read what a directory says of itself. Its files are not looked at.

    Raises:
        PermanentError: there is no manifest, or it is malformed, or names files elsewhere.
    """
    path = directory / MANIFEST
    try:
        manifest = ModelManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{path} is unreadable: write it anew (models/README.md), or add the model again."
        raise PermanentError(msg, code="manifest_invalid") from error
    for name in manifest.sha256:
        if not _stays_inside(directory, name):
            msg = f"{path} names {name!r}, which is outside its directory: write it anew."
            raise PermanentError(msg, code="manifest_invalid")
    return manifest


def verify(directory: Path, manifest: ModelManifest) -> None:
    """Compare every file that the manifest names with its SHA-256; reads them all.

    Raises:
        PermanentError: a file is missing or was changed; the message says what to do.
    """
    for name, expected in manifest.sha256.items():
        path = directory / name
        try:
            actual = sha256_of(path)
        except OSError as error:
            msg = f"{path} is missing or unreadable: restore it, or add the model again."
            raise PermanentError(msg, code="model_incomplete") from error
        if actual != expected:
            msg = f"{path} is not what {MANIFEST} says: restore it, or add the model again."
            raise PermanentError(msg, code="model_corrupt")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stays_inside(directory: Path, name: str) -> bool:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return False
    return (directory / relative).resolve().is_relative_to(directory.resolve())


async def seed(broker: Broker, catalog: ModelCatalog, clock: Clock = _CLOCK) -> None:
    """Announce the bundled models. Anybody may, at every start.

    What an operator removed stays removed, and what an operator changed stays changed: a record
    is created only where there never was one, and follows its directory only while its origin is
    "bundled".

    Raises:
        UnavailableError: NATS does not answer.
    """
    for directory, manifest in catalog.bundled():
        await announce(broker, _with_size(directory, manifest).record(), clock)


def _with_size(directory: Path, manifest: ModelManifest) -> ModelManifest:
    if manifest.size_bytes:
        return manifest
    files = [path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST]
    return manifest.model_copy(update={"size_bytes": sum(path.stat().st_size for path in files)})


async def announce(broker: Broker, fresh: ModelRecord, clock: Clock = _CLOCK) -> None:
    """Create or follow one bundled record; see `seed`."""
    for _ in range(_SEED_ATTEMPTS):
        standing = await last_entry(broker, Bucket.MODELS, fresh.name)
        record = _followed(standing, fresh, int(clock.now().timestamp()))
        if record is None:
            return
        value = record.model_dump_json().encode()
        revision = standing.sequence if standing else 0
        try:
            await put(broker, Bucket.MODELS, record.name, value, expected_revision=revision)
        except SequenceConflictError:
            continue  # another instance or an operator was faster: look again
        return
    log().warning("model.not_announced", model=fresh.name)


def _followed(standing: StoredMessage | None, fresh: ModelRecord, now_s: int) -> ModelRecord | None:
    """The record to write; None where nothing is to be changed.

    A crash count belongs to a version: the same files stay quarantined across restarts.
    """
    if standing is None:
        return fresh.model_copy(update={"created_unix_s": now_s})
    if not standing.data:
        return None  # removed
    try:
        old = ModelRecord.model_validate_json(standing.data)
    except ValidationError:
        log().error("model.record_unreadable", model=fresh.name)
        return None
    kept = old.crashed_on if old.version == fresh.version else ()
    wanted = fresh.model_copy(
        update={"created_unix_s": old.created_unix_s, "limits": old.limits, "crashed_on": kept}
    )
    return wanted if old.origin == "bundled" and wanted != old else None
