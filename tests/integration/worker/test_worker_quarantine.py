"""What a model's process died on is remembered in its record, whoever writes to it, too."""

from __future__ import annotations

import asyncio

from penstock_shared.contracts.models import QUARANTINE_AFTER, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.kv import last_entry, purge, put
from penstock_worker.adapters.echo_engine import ECHO_RECORD
from penstock_worker.adapters.model_crashes import NatsModelCrashes

_IDS = IdSource(SystemClock())


async def registered(broker: Broker) -> NatsModelCrashes:
    await put(broker, Bucket.MODELS, "echo", ECHO_RECORD.model_dump_json().encode())
    return NatsModelCrashes(broker)


async def record(broker: Broker) -> ModelRecord:
    entry = await last_entry(broker, Bucket.MODELS, "echo")
    assert entry is not None
    return ModelRecord.model_validate_json(entry.data)


async def test_three_different_requests_quarantine_a_model(broker: Broker):
    """Workers that write at the same time lose none of them."""
    crashes = await registered(broker)
    requests = [_IDS.new() for _ in range(QUARANTINE_AFTER)]
    told = await asyncio.gather(*(crashes.blame("echo", request) for request in requests))
    assert sorted(told) == [False] * (QUARANTINE_AFTER - 1) + [True]
    after = await record(broker)
    assert set(after.crashed_on) == set(requests)
    assert after.quarantined
    assert after.model_copy(update={"crashed_on": ()}) == ECHO_RECORD


async def test_one_request_given_up_three_times_does_not(broker: Broker):
    """A reject that is repeated (its ack was lost) writes nothing more."""
    crashes, request = await registered(broker), _IDS.new()
    assert [await crashes.blame("echo", request) for _ in range(4)] == [False] * 4
    assert (await record(broker)).crashed_on == (request,)


async def test_a_record_names_a_bounded_number_of_requests(broker: Broker):
    """A model nobody looks after stays quarantined, and its record stays small."""
    crashes = await registered(broker)
    requests = [_IDS.new() for _ in range(20)]
    for request in requests:
        await crashes.blame("echo", request)
    kept = (await record(broker)).crashed_on
    assert QUARANTINE_AFTER <= len(kept) < len(requests)
    assert list(kept) == requests[-len(kept) :]


async def test_a_removed_model_does_not_come_back(broker: Broker):
    """Blaming what was removed, or never was, writes nothing."""
    crashes = await registered(broker)
    await purge(broker, Bucket.MODELS, "echo")
    assert not await crashes.blame("echo", _IDS.new())
    assert not await crashes.blame("never", _IDS.new())
    entry = await last_entry(broker, Bucket.MODELS, "echo")
    assert entry is not None
    assert entry.data == b""
