"""Snapshots of what was learned: whatever becomes of them, the log decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.learning import (
    NotingLearned,
    follow_to_the_end,
    forget_snapshots,
    learning,
    rebuilt,
    tell,
)

from penstock_router.adapters import learner as learner_module
from penstock_router.adapters.learned_snapshots import LearnedSnapshots
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.domain.learned import Learned
from penstock_router.metrics import SNAPSHOTS_REJECTED
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

STATE, MANIFEST = "state.acme", "manifest"


def rejections(reason: str) -> float:
    return float(SNAPSHOTS_REJECTED.labels(reason)._value.get())


async def revisions(broker: Broker) -> dict[str, int]:
    entries = await kv.read_bucket(broker, Bucket.ROUTER)
    return {key: entry.sequence for key, entry in entries.items()}


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    ("key", "spoil", "reason"),
    [
        (STATE, flipped, "corrupt"),
        (STATE, lambda data: data[: len(data) // 2], "corrupt"),
        (STATE, lambda data: data[:10], "unreadable"),
        (STATE, lambda _: b"", "unreadable"),
        (STATE, lambda data: data.replace(b'"format":1', b'"format":9'), "unreadable"),
        (STATE, lambda data: data.replace(b'"log":"2', b'"log":"1'), "foreign"),
        (STATE, None, "unreadable"),
        (MANIFEST, flipped, "corrupt"),
        (MANIFEST, lambda _: b"\x00" * 100, "unreadable"),
        (MANIFEST, lambda data: data.replace(b'"sequence":', b'"sequence":9999'), "ahead"),
        (MANIFEST, None, "unreadable"),
    ],
)
async def test_a_spoilt_snapshot_is_rebuilt_from_the_log(
    broker: Broker, key: str, spoil: Callable[[bytes], bytes] | None, reason: str
) -> None:
    """It is said and counted, nothing is lost, and the next save mends it (I9)."""
    await tell(broker, random.Random(1), 12)
    async with learning(broker, NotingLearned()):
        pass
    if spoil is None:
        await kv.purge(broker, Bucket.ROUTER, key)
    else:
        stored = await kv.last_entry(broker, Bucket.ROUTER, key)
        assert stored is not None
        await kv.put(broker, Bucket.ROUTER, key, spoil(stored.data))
    before = rejections(reason)
    learned = NotingLearned()
    async with learning(broker, learned):
        assert rejections(reason) == before + 1
    again = NotingLearned()
    async with learning(broker, again):
        assert rejections(reason) == before + 1
    assert learned.noted == again.noted == await rebuilt(broker)


async def test_a_rebuild_that_was_cut_short_claims_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has of a lost state by then does not reach the manifest: it is rebuilt again."""

    class Away(NatsRequestLog):
        async def routed(self, *_: str) -> RequestRouted | None:
            raise UnavailableError("Not now.")

    await tell(broker, random.Random(1), 12)
    async with learning(broker, NotingLearned()):
        pass
    await kv.put(broker, Bucket.ROUTER, STATE, b"spoilt")
    with monkeypatch.context() as patched:
        patched.setattr(learner_module, "_CATCH_UP_S", 0.3)
        patched.setattr(learner_module, "_DECISIONS_KEPT", 1)
        hasty = NotingLearned()
        async with learning(broker, hasty, Away(broker)) as learner:
            assert learner.behind
            assert hasty.noted["acme"].told
    learned = NotingLearned()
    async with learning(broker, learned):
        pass
    assert learned.noted == await rebuilt(broker)


async def test_a_state_that_the_manifest_names_must_be_there(broker: Broker) -> None:
    """A key that is gone altogether is missed: the manifest says whose there are."""
    await tell(broker, random.Random(2), 6)
    async with learning(broker, NotingLearned()):
        pass
    await broker.jetstream.purge_stream("KV_router", subject=f"$KV.router.{STATE}")
    before = rejections("missing")
    learned = NotingLearned()
    async with learning(broker, learned):
        pass
    assert rejections("missing") == before + 1
    assert learned.noted == await rebuilt(broker)


async def test_a_log_that_was_made_anew_has_no_snapshots(broker: Broker) -> None:
    """Sequences of another log say nothing of this one's facts, and do not stand in their way."""
    await tell(broker, random.Random(3), 12)
    async with learning(broker, NotingLearned()):
        pass
    spec = (await broker.jetstream.stream_info(EVENTS)).config
    await broker.jetstream.delete_stream(EVENTS)
    await broker.jetstream.add_stream(spec)
    await tell(broker, random.Random(4), 2, ["acme"])
    learned = NotingLearned()
    async with learning(broker, learned):
        assert set(learned.tenants()) == {"acme"}
    before = rejections("foreign")
    again = NotingLearned()
    async with learning(broker, again):
        assert again.noted == learned.noted
        assert rejections("foreign") == before


async def test_an_empty_log_has_nothing_to_rebuild(broker: Broker) -> None:
    """A first start rejects nothing and keeps nothing."""
    before = rejections("missing")
    async with learning(broker, NotingLearned()):
        pass
    assert rejections("missing") == before
    assert await revisions(broker) == {}


async def test_nothing_goes_backwards(broker: Broker) -> None:
    """A replica that lags overwrites nothing of one that is ahead."""
    await tell(broker, random.Random(5), 8)
    behind = NotingLearned()
    async with learning(broker, behind) as slow:
        seq, noted = slow.events_seq, NotingLearned()
        for tenant in behind.tenants():
            noted.load(tenant, behind.dump(tenant))
        late = LearnedSnapshots(broker, noted)
        await late.restore()
        await tell(broker, random.Random(6), 8)
        await follow_to_the_end(broker, slow)
    ahead = await revisions(broker)
    await late.save(seq, at_once=True)
    assert await revisions(broker) == ahead


async def test_of_several_routers_one_saves(broker: Broker) -> None:
    """The others find its manifest and leave it at that, until it writes none any more."""
    learned = NotingLearned()
    async with learning(broker, learned) as learner:
        one, other = (LearnedSnapshots(broker, learned) for _ in range(2))
        await one.restore()
        await other.restore()
        for round_ in range(3):
            await tell(broker, random.Random(round_), 2)
            await follow_to_the_end(broker, learner)
            await one.save(learner.events_seq)
            written = await revisions(broker)
            await other.save(learner.events_seq + 1)
            assert await revisions(broker) == written
        await tell(broker, random.Random(9), 2)
        await follow_to_the_end(broker, learner)
        await other.save(learner.events_seq)
        assert (await revisions(broker))[MANIFEST] > written[MANIFEST]


async def test_two_writers_at_once_leave_what_can_be_used(broker: Broker) -> None:
    """Whoever wins each key: a start from the result learns what the whole log says."""
    one, other = NotingLearned(), NotingLearned()
    async with learning(broker, one) as first, learning(broker, other) as second:
        for seed in range(5):
            await tell(broker, random.Random(seed), 4)
            await asyncio.gather(
                first._snapshots.save(first.events_seq, at_once=True),
                second._snapshots.save(second.events_seq, at_once=True),
            )
    learned = NotingLearned()
    before = SNAPSHOTS_REJECTED.collect()
    async with learning(broker, learned):
        pass
    assert SNAPSHOTS_REJECTED.collect() == before
    assert learned.noted == await rebuilt(broker)


async def test_a_save_that_ends_anywhere_is_harmless(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After none, one, … of its writes: what is there and the log's tail are the whole log."""
    put, left = kv.put, 0

    async def failing(*arguments: Any, **options: Any) -> int:
        nonlocal left
        if left == 0:
            raise UnavailableError("The bucket is away.")
        left -= 1
        return await put(*arguments, **options)

    monkeypatch.setattr(kv, "put", failing)
    steady = NotingLearned()
    async with learning(broker, steady) as witness:
        for writes in range(6):
            await tell(broker, random.Random(writes), 4)
            left = writes
            async with learning(broker, NotingLearned()):
                pass
            learned, left = NotingLearned(), 0
            async with learning(broker, learned):
                pass
            await follow_to_the_end(broker, witness)
            assert learned.noted == steady.noted
    assert (await revisions(broker)).keys() > {MANIFEST, STATE}


async def test_a_restarted_router_believes_what_one_does_that_never_stopped(
    broker: Broker,
) -> None:
    """To the last bit, so it decides alike: after every restart, and from the log alone (I9)."""

    def beliefs(learned: Learned) -> dict[str, bytes]:
        return {tenant: learned.dump(tenant) for tenant in learned.tenants()}

    steady = Learned()
    async with learning(broker, steady) as witness:
        for seed in range(4):
            await tell(broker, random.Random(seed), 10)
            restarted = Learned()
            async with learning(broker, restarted):
                await follow_to_the_end(broker, witness)
                assert beliefs(restarted) == beliefs(steady)
        await forget_snapshots(broker)
        anew = Learned()
        async with learning(broker, anew):
            assert beliefs(anew) == beliefs(steady)
    assert all(steady.of(tenant).beliefs.tick for tenant in steady.tenants())
