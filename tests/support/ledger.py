"""What must hold of a stack whatever happened to it: the invariants, checked from its records."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
from tests.support.operator import operate
from tests.support.stack import Stack

from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    RequestRouted,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import cost_microusd
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader

SETTLE_TIMEOUT_S: Final = 90.0


@dataclass
class Requests:
    """The facts of every request in EVENTS, by request id."""

    routed: dict[str, RequestRouted] = field(default_factory=dict)
    ended: dict[str, list[RequestEnded]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, list[AttemptFailed]] = field(default_factory=lambda: defaultdict(list))
    """Attempts that were followed by another one."""
    last_seq: int = 0

    def attempts(self) -> list[AttemptFailed | RequestEnded]:
        """The facts that bill: one for each attempt."""
        failed = [fact for facts in self.failed.values() for fact in facts]
        return [*failed, *(fact for facts in self.ended.values() for fact in facts)]


async def read_requests(broker: Broker) -> Requests:
    """Read all of EVENTS."""
    reader = OrderedReader(broker, EVENTS, subjects.EVERY_EVENT)
    await reader.start()
    found = Requests()
    state = (await broker.jetstream.stream_info(EVENTS)).state
    while found.last_seq < state.last_seq:
        message: StoredMessage = await asyncio.wait_for(reader.get(), 30)
        found.last_seq = message.sequence
        if message.event_type == RequestRouted.TYPE:
            routed = RequestRouted.model_validate_json(message.data)
            assert routed.request_id not in found.routed, "routed twice"
            found.routed[routed.request_id] = routed
        elif message.event_type in TERMINAL_TYPES:
            ended = RequestEnded.model_validate_json(message.data)
            found.ended[ended.request_id].append(ended)
        elif message.event_type == AttemptFailed.TYPE:
            failed = AttemptFailed.model_validate_json(message.data)
            found.failed[failed.request_id].append(failed)
    await reader.stop()
    return found


async def wait_until_ended(broker: Broker) -> Requests:
    """Wait until every routed request has its terminal."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while True:
            found = await read_requests(broker)
            if set(found.routed) == set(found.ended):
                return found
            await asyncio.sleep(0.5)


def assert_once(found: Requests, accepted: set[str]) -> None:
    """Every accepted request is in the log (I1) and has exactly one terminal (I2)."""
    assert accepted <= set(found.routed), f"accepted but not logged: {accepted - set(found.routed)}"
    twice = {request: len(e) for request, e in found.ended.items() if len(e) != 1}
    assert not twice, f"not exactly one terminal: {twice}"


async def assert_billed_is_generated(stack: Stack, found: Requests) -> None:
    """Postgres holds each attempt's usage once, to the token and the micro-dollar (I2, I3)."""
    attempts = {(fact.request_id, fact.attempt): fact for fact in found.attempts()}
    billed: dict[tuple[str, int], tuple[int, int, int]] = {}
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while set(billed) != set(attempts):
            connection = await asyncpg.connect(stack.addresses["postgres"])
            rows = await connection.fetch("select * from billing.usage")
            await connection.close()
            billed = {
                (str(r["request_id"]), r["attempt"]): (
                    r["input_tokens"],
                    r["output_tokens"],
                    r["cost_microusd"],
                )
                for r in rows
            }
            await asyncio.sleep(0.2)
    for key, fact in attempts.items():
        usage = fact.usage
        cost = cost_microusd(usage, fact.price)
        assert billed[key] == (usage.input_tokens, usage.output_tokens, cost), key


async def assert_reconciled(stack: Stack) -> None:
    """Event log, usage, its sums, the ledger and the previews of invoices say the same (I2)."""
    report = await operate(stack, "billing", "reconcile")
    assert (report["differences"], report["behind"]) == ([], 0), json.dumps(report)


async def assert_audited(stack: Stack) -> None:
    """The audit log verifies, and holds every event of EVENTS in order (I5)."""
    proof = await operate(stack, "audit", "verify", "--against-events")
    assert proof["verified"] is True, json.dumps(proof)


def assert_no_plaintext(data_dir: Path, needles: list[bytes]) -> None:
    """No file of the stack holds any of `needles` in the clear (I10)."""
    for path in data_dir.rglob("*"):
        if path.is_file() and "postgres" not in path.parts:
            data = path.read_bytes()
            found = [needle for needle in needles if needle in data]
            assert not found, f"{path.relative_to(data_dir)} holds content in the clear"
