"""Laws of the archive: order, repetition and batches of facts change nothing (I2); I8 and I10."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.support.response_store import ResponseStore

from penstock_realtime.adapters.postgres_responses import PostgresResponses
from penstock_realtime.domain.archiving import archived, folded, is_kept
from penstock_realtime.ports import ArchivedResponse
from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import (
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    terminal_type,
)
from penstock_shared.contracts.stored import ResponseDeleted, is_stored
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.postgres import Postgres

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PRICE = Price(input_microusd_per_1k=1, output_microusd_per_1k=1)
REQUEST = "0190e0f0-0000-7000-8000-000000000001"
KINDS = (RequestRouted.TYPE, terminal_type(Status.COMPLETED), ResponseDeleted.TYPE)
TENANTS = ("acme", "globex")


def routed(subject: str, *, store: bool) -> RequestRouted:
    return RequestRouted(
        request_id=REQUEST,
        tenant="acme",
        key_id="key_1",
        data_subject=subject,
        lane=Lane.STANDARD,
        attempt=1,
        decision=Decision(
            policy=subject, model="m", probability=1.0, reason=subject, features={"store": 1.0}
        ),
        price=PRICE,
        sampling=Sampling(),
        content=subject,
        accepted_at=NOON,
        deadline=NOON,
        store=store,
    )


def ended(subject: str, *, store: bool) -> RequestEnded:
    return RequestEnded.unstarted(
        routed(subject, store=store), NOON, status=Status.FAILED, reason="expired"
    )


texts = st.one_of(
    st.text(min_size=1, max_size=256),
    st.sampled_from(['"store":true', '\\"store":true', '","store":true,"x":"', "\\"]),
)


@given(subject=texts, store=st.booleans())
def test_no_text_can_ask_to_be_stored(subject: str, store: bool) -> None:  # noqa: FBT001
    """Only the field itself decides, whatever strings clients get into a fact (I8)."""
    assert is_stored(routed(subject, store=store).model_dump_json().encode()) is store
    assert is_stored(ended(subject, store=store).model_dump_json().encode()) is store


def test_what_is_kept() -> None:
    """Terminals and `routed` with `store`, and deletions; failed attempts and strangers are not."""
    for kind in (RequestRouted.TYPE, *map(terminal_type, Status)):
        assert is_kept(kind, b'{"store":true}')
        assert not is_kept(kind, b'{"store":false}')
    assert is_kept(ResponseDeleted.TYPE, b"{}")
    for other in ("penstock.attempt.failed.v1", "penstock.account.key_created.v1", None):
        assert not is_kept(other, b'{"store":true}')


def every_event(seed: int, count: int, ids: int = 5) -> list[ArchivedResponse]:
    """What EVENTS says of `count` responses, each of them with some of the three kinds."""
    rng = random.Random(seed)
    events = []
    for n in range(count):
        request_id = f"0190e0f0-0000-7000-8000-{n % ids:012d}"
        for kind in rng.sample(KINDS, rng.randint(1, 3)):
            expires_at = NOON + timedelta(minutes=rng.randint(0, 9))
            subject = subjects.request_event(rng.choice(TENANTS), request_id)
            event = archived(kind, subject, f"{kind} of {subject}".encode(), expires_at)
            assert event is not None
            events.append(event)
    return events


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), data=st.data())
def test_the_fold_ignores_order_and_repetition(seed: int, count: int, data: st.DataObject) -> None:
    """Any shuffling of any multiset of the events folds to the same rows; a deletion wins."""
    events = every_event(seed, count)
    copies = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events)))))
    rows = folded(events)
    assert folded(copies) == rows
    assert folded([*rows, *rows]) == rows
    deleted = {(e.tenant, e.request_id) for e in events if e.deleted}
    assert {(row.tenant, row.request_id) for row in rows if row.deleted} == deleted
    assert not any(row.deleted and (row.routed or row.ended) for row in rows)


def test_a_subject_that_no_request_has_is_passed_over() -> None:
    """It could not be retrieved either, and must not stop the archive."""
    assert archived(KINDS[0], "v1.acme.events.request.what", b"", NOON) is None


@pytest.fixture
async def responses(postgres_dsn: str) -> PostgresResponses:
    """A migrated store that has read nothing."""
    postgres = await Postgres.prepare(SecretStr(postgres_dsn), name="test", connections=4)
    store = PostgresResponses(postgres)
    assert await store.prepare()
    await store.rebuild_begun()
    assert not await store.prepare()
    return store


@pytest.mark.parametrize("seed", range(3))
async def test_replicas_that_write_any_batches_agree(
    responses: PostgresResponses, postgres_dsn: str, seed: int
) -> None:
    """Four at once, with copies, in other orders and batches: Postgres holds what the fold says."""
    rng = random.Random(seed)
    events = every_event(seed, 40)

    async def replica(mine: Sequence[ArchivedResponse]) -> None:
        left = iter(mine)
        while batch := list(itertools.islice(left, rng.randint(1, 9))):
            await responses.keep(folded(batch))

    await asyncio.gather(*(replica(rng.sample(events, len(events))) for _ in range(4)))
    rows = await ResponseStore(postgres_dsn).rows()
    kept = [
        (row["tenant"], str(row["request_id"]), row["routed"], row["ended"], row["deleted"])
        for row in rows
    ]
    assert kept == [(r.tenant, r.request_id, r.routed, r.ended, r.deleted) for r in folded(events)]


async def test_pruning_takes_what_has_expired_a_little_at_a_time(
    responses: PostgresResponses, postgres_dsn: str
) -> None:
    """Two prune at once; the others' rows stay, tombstones go like all the rest."""
    events = folded(every_event(7, 60, ids=30))
    await responses.keep(events)
    now = NOON + timedelta(minutes=5)
    expired = sum(event.expires_at <= now for event in events)
    assert 4 < expired < len(events)
    removed = [await responses.prune(now, 2)]
    assert removed == [2]
    while sum(removed) < expired:
        removed += await asyncio.gather(responses.prune(now, 3), responses.prune(now, 3))
    assert sum(removed) == expired
    assert max(removed) <= 3
    assert await responses.prune(now, 3) == 0
    left = await ResponseStore(postgres_dsn).rows()
    assert len(left) == len(events) - expired
    assert all(row["expires_at"] > now for row in left)
