"""One batch, with a ledger and a DEAD that fail in every way they can."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.billing import terminal, terminal_headers
from tests.support.quotas import ended, routed

from penstock_billing.handlers.usage import UsageIngest
from penstock_billing.ports.usage import Added, MeteredUsage
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PenstockError, SchemaError, UnavailableError
from penstock_shared.contracts.requests import RequestEnded, RequestRouted
from penstock_shared.contracts.reservations import RESERVED_HEADER
from penstock_shared.contracts.usage import UsageRow
from penstock_shared.runtime.consumer import Delivery

UNSTORABLE = "odd"
"""A key id that the ledger below refuses."""


class Ledger:
    """Rows in memory; raises what it is told to, once each, before it takes any."""

    def __init__(self, *failures: Exception) -> None:
        self.rows: list[MeteredUsage] = []
        self.reserved: list[RequestRouted] = []
        self.rows_when_restored = 0
        self._failures = list(failures)

    async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
        if self._failures:
            raise self._failures.pop(0)
        self.rows.extend(rows)
        return []

    async def restore(self, requests: Sequence[RequestRouted]) -> None:
        for request in requests:
            if request.key_id == UNSTORABLE:
                raise SchemaError("The fact holds a value that cannot be stored.")
        self.rows_when_restored = len(self.rows)
        self.reserved.extend(requests)

    async def rebuild_until(self) -> int:
        raise AssertionError

    async def rebuild_ended(self, events_seq: int) -> bool:
        raise AssertionError(events_seq)

    async def reservations(self) -> int:
        raise AssertionError

    async def totals(self, tenant: str | None = None) -> list[UsageRow]:
        raise AssertionError(tenant)


class Wire:
    """Remembers how each delivery was settled, and what the ledger held by then."""

    def __init__(self, ledger: Ledger) -> None:
        self.settled: dict[int, str] = {}
        self.rows_when_acked = 0
        self._ledger = ledger

    def delivery(self, sequence: int, ended: RequestEnded, **changes: Any) -> Delivery:
        def settle(how: str) -> Any:
            async def settled(**_: object) -> None:
                self.settled[sequence] = how
                self.rows_when_acked = len(self._ledger.rows)

            return settled

        fields: dict[str, Any] = {
            "subject": subjects.request_event(ended.tenant, ended.request_id),
            "data": ended.model_dump_json().encode(),
            "headers": terminal_headers(ended),
            **changes,
        }
        msg: Any = SimpleNamespace(ack=settle("ack"), nak=settle("nak"), term=settle("term"))
        return Delivery(
            msg=msg, sequence=sequence, deliveries=1, stored_ns=time.time_ns(), **fields
        )


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


async def bury(_: Delivery, __: PenstockError) -> None:
    return


def ingest(ledger: Ledger, reject: Any = bury) -> UsageIngest:
    return UsageIngest(ledger, reject, random.Random(1), no_pause)


async def test_acknowledged_after_the_commit() -> None:
    """No ack leaves before every row of the batch is in the ledger (I2)."""
    ledger = Ledger()
    wire = Wire(ledger)
    routed = wire.delivery(
        1, terminal(), data=b"never parsed", headers={"ce-type": RequestRouted.TYPE}
    )
    await ingest(ledger).on_batch([routed, wire.delivery(2, terminal())])
    assert wire.settled == {1: "ack", 2: "ack"}
    assert wire.rows_when_acked == len(ledger.rows) == 1


async def test_it_holds_the_batch_until_the_ledger_answers() -> None:
    """Away, or failing in a way nobody thought of: tried again, acknowledged once."""
    ledger = Ledger(UnavailableError("away"), RuntimeError("table dropped"))
    wire = Wire(ledger)
    await ingest(ledger).on_batch([wire.delivery(1, terminal())])
    assert wire.settled == {1: "ack"}
    assert len(ledger.rows) == 1


async def test_dead_out_of_order_blocks_no_neighbour() -> None:
    """If even burying fails, the poison comes again and its neighbours are settled."""

    async def broken(_: Delivery, __: PenstockError) -> None:
        raise ValueError

    ledger = Ledger()
    wire = Wire(ledger)
    poison = wire.delivery(1, terminal(), data=b"{")
    await ingest(ledger, broken).on_batch([poison, wire.delivery(2, terminal())])
    assert wire.settled == {1: "nak", 2: "ack"}
    assert len(ledger.rows) == 1


async def test_cancelled_it_hands_back() -> None:
    """A replica that stops while Postgres is away keeps nothing from the others."""

    class Away(Ledger):
        async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
            raise UnavailableError(str(len(rows)))

    ledger = Away()
    wire = Wire(ledger)
    task = asyncio.create_task(ingest(ledger).on_batch([wire.delivery(1, terminal())]))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.settled == {1: "nak"}


def reservation(sequence: int, wire: Wire, **fields: Any) -> Delivery:
    """A `routed` fact with reservations, as its router published it."""
    request = routed(10, **fields)
    headers = {"ce-type": RequestRouted.TYPE, RESERVED_HEADER: "1"}
    return wire.delivery(
        sequence, ended(request, 1), headers=headers, data=request.model_dump_json().encode()
    )


async def test_reservations_are_read_after_usage_and_others_not_at_all() -> None:
    """What the batch ends is not reserved again; `routed` without reservations is not parsed."""
    ledger = Ledger()
    wire = Wire(ledger)
    request = routed(10)
    plain = {"ce-type": RequestRouted.TYPE}
    batch = [
        reservation(1, wire, request_id=request.request_id),
        reservation(2, wire, request_id=request.request_id),
        wire.delivery(3, ended(request, 1), headers=plain, data=b"not even JSON"),
        wire.delivery(4, ended(request, 1)),
    ]
    await ingest(ledger).on_batch(batch)
    assert [fact.request_id for fact in ledger.reserved] == [request.request_id]
    assert (len(ledger.rows), ledger.rows_when_restored) == (1, 1)
    assert wire.settled == dict.fromkeys((1, 2, 3, 4), "ack")


async def test_reservations_that_cannot_be_read_are_buried_alone() -> None:
    """One that is no fact, one of another tenant's subject, one that cannot be stored (I8)."""
    ledger = Ledger()
    wire = Wire(ledger)
    buried: list[int] = []

    async def reject(delivery: Delivery, _: PenstockError) -> None:
        buried.append(delivery.sequence)

    good = reservation(1, wire)
    broken = reservation(2, wire)
    broken = dataclasses.replace(broken, data=b"{}")
    strange = dataclasses.replace(reservation(3, wire), subject=good.subject)
    odd = reservation(4, wire, key_id=UNSTORABLE)
    await ingest(ledger, reject).on_batch([good, broken, strange, odd])
    assert buried == [2, 3, 4]
    assert len(ledger.reserved) == 1
    assert wire.settled == {1: "ack", 2: "term", 3: "term", 4: "term"}
