"""The auditor's desk: verifies a log, compares it with the live event log, asks for checkpoints."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import OperatorError
from penstock.operator_bus import operator_bus
from penstock_audit.comparison import EventsPosition, events_position, wait_until_covered
from penstock_audit.verification import Progress, VerifiedLog, verify_log, witnessed_roots
from penstock_shared.contracts import subjects
from penstock_shared.contracts.audit import CheckpointQuery, SignedCheckpoint
from penstock_shared.contracts.errors import TransientError
from penstock_shared.runtime.broker import Broker


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be verified."""

    log: Path
    vkey: str
    # Signed checkpoints that somebody kept.
    kept: Sequence[str]
    # Where the live event log is, if the log is to be compared with it.
    nats_url: str | None
    # How long audit may lag behind it.
    wait_s: float


def verify(case: Case, progress: Progress | None) -> tuple[VerifiedLog, EventsPosition | None]:
    """Verify a log; the second result is where the live event log was before.

    Raises:
        VerificationError: Something is wrong with the log, or with the event log.
        OperatorError: The event log does not answer.
    """
    notes, position = list(case.kept), None
    if case.nats_url is not None:
        position = asyncio.run(_compare(case.nats_url, case))
        if position.published is not None:  # what was published is a witness too
            notes.append(position.published.checkpoint)
    witnessed = witnessed_roots(notes, case.vkey)
    return verify_log(case.log, case.vkey, witnessed=witnessed, progress=progress), position


def ask_checkpoint(nats_url: str) -> SignedCheckpoint:
    """Ask the running audit service for its latest checkpoint.

    Raises:
        OperatorError: It does not answer.
    """
    return asyncio.run(_ask(nats_url))


async def _ask(nats_url: str) -> SignedCheckpoint:
    async with operator_bus(nats_url) as bus:
        return await bus.ask(subjects.audit_checkpoint(), CheckpointQuery(), SignedCheckpoint)


async def _compare(nats_url: str, case: Case) -> EventsPosition:
    try:
        broker = await Broker.connect(nats_url, name="penstock-audit-verify")
        try:
            position = await events_position(broker)
        finally:
            await broker.close()
    except TransientError as error:
        raise OperatorError(error.message, "Is the stack up? See `penstock ps`.") from error
    await wait_until_covered(case.log, case.vkey, position.due_seq, case.wait_s)
    return position
