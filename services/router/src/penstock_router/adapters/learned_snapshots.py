"""What was learned, kept in the bucket `router`: a start reads it, and only the log's tail.

`state.<tenant>` holds what was learned of one tenant up to a sequence of its own. `manifest` says
up to which sequence all of them together hold everything. It is written after them, so whatever
dies in between leaves states that are ahead of the manifest, and the fold passes over what a state
has seen already. Nothing goes backwards: what is stored is compared, and replaced by its revision.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from penstock_router import metrics
from penstock_router.domain.learned import CorruptSnapshotError, Learned
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.routing import PolicySet
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.telemetry import log

_MANIFEST: Final = "manifest"
_STATE: Final = "state."
_TENANTS: Final = TypeAdapter(frozenset[TenantId])
_CONFLICTS: Final = 20
_CONFLICT_PAUSE_S: Final = 0.05


class _Header(BaseModel):
    """The first line of a snapshot; the rest is its body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    log: str
    """When the event log was made: sequences of another one mean nothing here."""
    sequence: Annotated[int, Field(ge=0)]
    crc32: int
    """Of the body."""


class _Snapshot(NamedTuple):
    sequence: int
    body: bytes


class _RejectedError(Exception):
    """A snapshot cannot be used; its message is the reason in one word."""


class LearnedSnapshots:
    """One key per tenant, and a manifest that says up to which fact all of them together reach."""

    def __init__(self, broker: Broker, learned: Learned) -> None:
        self._broker = broker
        self._learned = learned
        self._log = ""
        self._seen = 0
        """The last manifest's sequence that this router has written or found."""
        self._unusable: dict[str, int] = {}
        """Revisions of keys whose value is no good: it is replaced whatever its sequence."""

    async def restore(self, copies: Iterable[tuple[PolicySet, int]] = ()) -> int:
        """Load what can be used; returns the sequence from which EVENTS has to be read.

        Comes before any `save`. Of `copies`, policies with the sequences of their facts, those
        are adopted that the log has no more: the others are folded in their place.
        """
        info = await self._broker.jetstream.stream_info(EVENTS)
        self._log = str(info.created)
        entries = await kv.read_bucket(self._broker, Bucket.ROUTER)
        through, tenants = self._read_manifest(entries, info.state.last_seq)
        for tenant in sorted(tenants):
            self._load(tenant, entries, info.state.last_seq)
        for policy, sequence in copies:
            if sequence < info.state.first_seq:
                self._learned.adopt_policy(policy, sequence)
        self._seen = through
        start_seq = 1 if self._unusable else through + 1
        if start_seq < info.state.first_seq:
            log().warning("snapshots.log_is_shorter", first_seq=info.state.first_seq)
        return start_seq

    async def save(self, through: int, *, at_once: bool = False) -> None:
        """Keep what was learned from all facts up to `through`.

        Of several routers one saves: the others find its manifest, and leave it at that unless
        `at_once`.

        Raises:
            UnavailableError: the bucket did not confirm; what it holds can be used all the same.
        """
        _, known = await self._stored(_MANIFEST)
        elsewhere, self._seen = known > self._seen, max(known, self._seen)
        if through < known:
            return  # also with states to replace: they would not reach the manifest
        if not self._unusable and (through == known or (elsewhere and not at_once)):
            return
        tenants = frozenset(self._learned.tenants())
        for tenant in tenants:
            await self._save_state(tenant, known)
        await self._put(_MANIFEST, through, _TENANTS.dump_json(tenants))
        self._seen = max(through, self._seen)

    async def _save_state(self, tenant: str, known: int) -> None:
        """Unless the manifest at `known` covers it."""
        key, sequence = _STATE + tenant, self._learned.of(tenant).seq
        if sequence > known or key in self._unusable:
            await self._put(key, sequence, self._learned.dump(tenant))

    def _read_manifest(
        self, entries: Mapping[str, StoredMessage], last_seq: int
    ) -> tuple[int, frozenset[str]]:
        """Up to where the states hold everything, and whose there are.

        Without a manifest every state that is there counts for itself: what was purged of the
        log may be in it.
        """
        try:
            snapshot = self._usable(entries, _MANIFEST, last_seq)
            return snapshot.sequence, _TENANTS.validate_json(snapshot.body)
        except (_RejectedError, ValidationError) as error:
            if last_seq:  # else there was never anything to learn
                self._reject(_MANIFEST, entries, error)
            states = (key for key in entries if key.startswith(_STATE))
            return 0, frozenset(key.removeprefix(_STATE) for key in states)

    def _load(self, tenant: str, entries: Mapping[str, StoredMessage], last_seq: int) -> None:
        try:
            snapshot = self._usable(entries, _STATE + tenant, last_seq)
            self._learned.load(tenant, snapshot.body)
        except (_RejectedError, CorruptSnapshotError) as error:
            self._reject(_STATE + tenant, entries, error)

    def _usable(self, entries: Mapping[str, StoredMessage], key: str, last_seq: int) -> _Snapshot:
        if key not in entries:
            raise _RejectedError("missing")
        snapshot = _unpacked(entries[key].data, self._log)
        if snapshot.sequence > last_seq:
            raise _RejectedError("ahead")
        return snapshot

    def _reject(self, key: str, entries: Mapping[str, StoredMessage], error: Exception) -> None:
        self._unusable[key] = entries[key].sequence if key in entries else 0
        reason = str(error) if isinstance(error, _RejectedError) else "unreadable"
        metrics.SNAPSHOTS_REJECTED.labels(reason).inc()
        log().error("snapshot.rejected", key=key, reason=reason, then="rebuilt from the event log")

    async def _put(self, key: str, sequence: int, body: bytes) -> None:
        data = _packed(sequence, body, self._log)
        for _ in range(_CONFLICTS):
            revision, stored = await self._stored(key)
            if stored >= sequence:
                return  # another router is ahead
            try:
                await kv.put(self._broker, Bucket.ROUTER, key, data, expected_revision=revision)
            except SequenceConflictError:  # it was faster, or what was read is old
                await asyncio.sleep(_CONFLICT_PAUSE_S)
            else:
                self._unusable.pop(key, None)
                return
        msg = "A snapshot is being written by others without end: it is tried again later."
        raise UnavailableError(msg, code="snapshot_contended")

    async def _stored(self, key: str) -> tuple[int, int]:
        """Revision and sequence of what stands there; sequence 0: nothing that can be used."""
        entry = await kv.last_entry(self._broker, Bucket.ROUTER, key)
        if entry is None:
            return 0, 0
        if self._unusable.get(key) == entry.sequence:
            return entry.sequence, 0
        try:
            return entry.sequence, _unpacked(entry.data, self._log).sequence
        except _RejectedError:
            return entry.sequence, 0


def _packed(sequence: int, body: bytes, made_at: str) -> bytes:
    header = _Header(log=made_at, sequence=sequence, crc32=zlib.crc32(body))
    return header.model_dump_json().encode() + b"\n" + body


def _unpacked(data: bytes, made_at: str) -> _Snapshot:
    """Take a snapshot apart that was made of this log.

    Raises:
        _RejectedError: it was not, or is not whole.
    """
    line, _, body = data.partition(b"\n")
    try:
        header = _Header.model_validate_json(line)
    except ValidationError as error:
        raise _RejectedError("unreadable") from error
    if header.crc32 != zlib.crc32(body):
        raise _RejectedError("corrupt")
    if header.log != made_at:
        raise _RejectedError("foreign")
    return _Snapshot(header.sequence, body)
