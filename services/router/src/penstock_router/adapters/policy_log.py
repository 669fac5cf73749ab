"""Tenants' policies: facts in EVENTS, and a copy of each tenant's last one in the bucket `router`.

The facts are the truth, written under expected-last-sequence. The copy is what is left when EVENTS
has been purged of them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_router.adapters.tasks import Tasks
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.routing import POLICY_FACT, ROUTER_TOPIC, PolicySet
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.request_log import UnreadableFactError
from penstock_shared.runtime.telemetry import log

_KEY: Final = "policy."
_RETRY_S: Final = 0.5


class PolicyRecord(BaseModel):
    """The copy of a tenant's last policy."""

    model_config = ConfigDict(frozen=True)

    log: str
    """When the event log was made: a copy of another one's fact is none."""
    sequence: int
    """Of the fact."""
    fact: PolicySet


class PolicyLog:
    """Reads and writes policies, and keeps their copies."""

    def __init__(self, broker: Broker, *, source: str) -> None:
        self._broker = broker
        self._source = source
        self._log = ""
        self._records: dict[str, PolicyRecord] = {}
        self._reader = OrderedReader(
            broker, EVENTS, subjects.EVERY_POLICY_EVENT, last_per_subject=True
        )
        self._tasks = Tasks()

    async def start(self) -> None:
        """Read the copies, then follow the facts."""
        info = await self._broker.jetstream.stream_info(EVENTS)
        self._log = str(info.created)
        for key, entry in (await kv.read_bucket(self._broker, Bucket.ROUTER)).items():
            record = self._parse(key, entry) if key.startswith(_KEY) else None
            if record is not None:
                self._records[record.fact.tenant] = record
        await self._reader.start()
        self._tasks.spawn("policies-follow", self._follow())

    def problems(self) -> list[str]:
        """Which of its tasks are gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Stop following."""
        await self._tasks.stop()
        await self._reader.stop()

    def copies(self) -> list[tuple[PolicySet, int]]:
        """Each tenant's last known policy, with the sequence of its fact."""
        return [(record.fact, record.sequence) for record in self._records.values()]

    async def last(self, tenant: str) -> tuple[PolicySet | None, int, int]:
        """A tenant's policy, the sequence of its fact, and what the next one has to expect.

        The last two differ when only the copy is left: then the subject is empty.

        Raises:
            UnavailableError: the log does not answer, or holds what cannot be read.
        """
        message = await self._broker.last_message(EVENTS, _subject(tenant))
        if message is not None:
            return _fact(message), message.sequence, message.sequence
        copy = self._records.get(tenant)
        return (None, 0, 0) if copy is None else (copy.fact, copy.sequence, 0)

    async def write(self, fact: PolicySet, expected_seq: int) -> int:
        """Write the next policy; returns its sequence.

        Raises:
            SequenceConflictError: somebody else has written one.
            UnavailableError: no confirmation; it may be written or not.
        """
        return await self._broker.publish(
            _subject(fact.tenant),
            fact.model_dump_json().encode(),
            Envelope(
                id=f"{fact.tenant}/policy/{expected_seq}",
                source=self._source,
                type=PolicySet.TYPE,
                time=fact.set_at,
            ),
            expected_last_seq=expected_seq,
        )

    async def _follow(self) -> None:
        while True:
            message = await self._reader.get()
            try:
                fact = _fact(message)
            except UnreadableFactError as error:
                log().error("policy.unreadable", sequence=message.sequence, code=error.code)
                continue
            await self._copy(PolicyRecord(log=self._log, sequence=message.sequence, fact=fact))

    async def _copy(self, record: PolicyRecord) -> None:
        """Keep it unless a later one is there; every replica tries."""
        known = self._records.get(record.fact.tenant)
        if known is not None and known.sequence >= record.sequence:
            return
        self._records[record.fact.tenant] = record
        while True:
            try:
                if await self._stored(record):
                    return
            except (TransientError, SequenceConflictError) as error:
                log().info("policy.copy_postponed", code=error.code)
            await asyncio.sleep(_RETRY_S)

    async def _stored(self, record: PolicyRecord) -> bool:
        key = _KEY + record.fact.tenant
        entry = await kv.last_entry(self._broker, Bucket.ROUTER, key)
        there = None if entry is None else self._parse(key, entry)
        if there is None or there.sequence < record.sequence:
            revision = 0 if entry is None else entry.sequence
            data = record.model_dump_json().encode()
            await kv.put(self._broker, Bucket.ROUTER, key, data, expected_revision=revision)
        return True

    def _parse(self, key: str, entry: StoredMessage) -> PolicyRecord | None:
        """A copy of this log's; None: it is of another one, or spoilt, and is to be replaced."""
        if not entry.data:
            return None  # it was purged
        try:
            record = PolicyRecord.model_validate_json(entry.data)
        except ValidationError:
            log().error("policy.copy_unreadable", key=key, then="replaced from the event log")
            return None
        return record if record.log == self._log and key == _KEY + record.fact.tenant else None


def _subject(tenant: str) -> str:
    return subjects.topic_event(tenant, ROUTER_TOPIC, POLICY_FACT)


def _fact(message: StoredMessage) -> PolicySet:
    """The policy in a message of its tenant's own subject.

    Raises:
        UnreadableFactError: it is malformed, or somebody else's (I8).
    """
    try:
        fact = PolicySet.model_validate_json(message.data)
    except ValidationError as error:
        msg = "The tenant's policy cannot be read here: update this router."
        raise UnreadableFactError(msg) from error
    if message.subject != _subject(fact.tenant):
        msg = "A policy lies on a subject that is not its own."
        raise UnreadableFactError(msg)
    return fact
