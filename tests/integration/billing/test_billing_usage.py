"""Usage end to end: EVENTS in, settled rows out, each exactly once (I2)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import asyncpg
from tests.support.billing import (
    Operator,
    StartBilling,
    eventually,
    failed_attempt,
    terminal,
    terminals,
)

from penstock_shared.contracts import subjects
from penstock_shared.contracts.dead import DeadLetter
from penstock_shared.contracts.requests import RequestEnded, RequestRouted, Status
from penstock_shared.contracts.streams import BILLING_CONSUMER, DEAD, EVENTS
from penstock_shared.contracts.usage import Price, Usage, UsageReport, cost_microusd
from penstock_shared.runtime.broker import Broker


def expected(facts: list[RequestEnded]) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """What the facts add up to, each counted once."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for fact in {(f.tenant, f.request_id): f for f in facts}.values():
        sums.setdefault((fact.tenant, fact.model), Counter()).update(
            requests=1,
            input=fact.usage.input_tokens,
            output=fact.usage.output_tokens,
            cost=cost_microusd(fact.usage, fact.price),
        )
    return {k: (s["requests"], s["input"], s["output"], s["cost"]) for k, s in sums.items()}


def reported(report: UsageReport) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    return {
        (row.tenant, row.model): (
            row.requests,
            row.input_tokens,
            row.output_tokens,
            row.cost_microusd,
        )
        for row in report.rows
    }


async def test_usage_is_the_sum_of_the_facts(
    start_billing: StartBilling, operator: Operator
) -> None:
    """All statuses count, failed and cancelled too: what was generated is billed (I3)."""
    facts = terminals(random.Random(1), 120)
    async with start_billing():
        await asyncio.gather(*(operator.publish(fact) for fact in facts))
        report = await operator.caught_up()
        assert reported(report) == expected(facts)
        one = await operator.usage("acme")
        assert {row.tenant for row in one.rows} == {"acme"}


async def test_duplicates_and_disorder_change_nothing(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Every fact stored three times, shuffled, read in batches of seven (I2)."""
    rng = random.Random(2)
    facts = terminals(rng, 40)
    copies = facts * 3
    rng.shuffle(copies)
    async with start_billing(batch_limit=7):
        for fact in copies:
            await operator.publish(fact)
        assert reported(await operator.caught_up()) == expected(facts)


async def test_what_was_committed_and_not_acknowledged_counts_once(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Killed between commit and ack: the whole log is delivered again to the next one (I2)."""
    facts = terminals(random.Random(3), 60)
    async with start_billing():
        await asyncio.gather(*(operator.publish(fact) for fact in facts))
        await operator.caught_up()
    await broker.jetstream.delete_consumer(EVENTS, BILLING_CONSUMER.durable)  # forgets every ack
    async with start_billing():
        assert reported(await operator.caught_up()) == expected(facts)


async def test_two_replicas_share_the_log(start_billing: StartBilling, operator: Operator) -> None:
    """Two replicas, and copies that may reach either: the sums are those of one (I2)."""
    rng = random.Random(4)
    facts = terminals(rng, 200)
    copies = facts + rng.sample(facts, 100)
    rng.shuffle(copies)
    async with start_billing(batch_limit=20), start_billing(batch_limit=20):
        await asyncio.gather(*(operator.publish(fact) for fact in copies))
        assert reported(await operator.caught_up()) == expected(facts)


async def test_a_replica_that_leaves_loses_nothing(
    start_billing: StartBilling, operator: Operator
) -> None:
    """One drains while facts come in: what it had not written goes to the other at once."""
    facts = terminals(random.Random(5), 200)
    async with start_billing(batch_limit=10):
        async with start_billing(batch_limit=10):
            publishing = asyncio.gather(*(operator.publish(fact) for fact in facts))
            await asyncio.sleep(0.05)
        await publishing
        assert reported(await operator.caught_up(within_s=10)) == expected(facts)


async def test_poison_goes_to_dead_and_its_neighbours_count(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Malformed, misplaced, uncountable and unstorable facts are buried, sealed, and block none.

    A fact under another tenant's subject would bill the wrong one (I8).
    """
    good = terminals(random.Random(6), 10)
    liar = terminal(tenant="globex")
    huge = terminal(
        usage=Usage(input_tokens=2**53, output_tokens=0),
        price=Price(input_microusd_per_1k=2**53, output_microusd_per_1k=0),
    )
    before_time = (
        terminal()
        .model_dump_json()
        .replace('"ended_at":"2026-05-01T12:00:00Z"', '"ended_at":"0001-01-01T00:00:00+14:00"')
    )
    subject = [subjects.request_event("acme", terminal().request_id) for _ in range(2)]
    async with start_billing(batch_linger_s=0.3):
        await operator.publish_raw(subject[0], b'{"secret": "sauce"')
        await operator.publish_raw(subject[1], liar.model_dump_json().encode())
        await operator.publish(huge)
        unstorable = RequestEnded.model_validate_json(before_time)
        await operator.publish(unstorable)
        await asyncio.gather(*(operator.publish(fact) for fact in good))
        assert reported(await operator.caught_up()) == expected(good)
        state = (await broker.jetstream.stream_info(DEAD)).state
        assert state.messages == 4
        letter = await broker.jetstream.get_msg(DEAD, state.first_seq)
        buried = DeadLetter.model_validate_json(letter.data or b"")
        assert buried.stream == EVENTS
        assert "sauce" not in (letter.data or b"").decode()


async def test_only_terminals_carry_usage(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """`routed` is passed over by its type, whatever it holds; facts of other topics never come."""
    ended = terminal()
    subject = subjects.request_event(ended.tenant, ended.request_id)
    async with start_billing():
        await broker.jetstream.publish(
            subject, b"not even JSON", headers={"ce-type": RequestRouted.TYPE}
        )
        await operator.publish(ended)
        await broker.jetstream.publish(subjects.topic_event("acme", "account", "x"), b"")
        report = await operator.caught_up()
        assert reported(report) == expected([ended])
        last = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
        assert report.events_seq == last
        assert (await broker.jetstream.stream_info(DEAD)).state.messages == 0


async def test_attempts_count_and_requests_count_once(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Two attempts of one request are two usages of one request; ids are the tenant's own (I8)."""
    first = terminal(status=Status.FAILED, reason="error", tokens=(10, 5))
    second = first.model_copy(update={"attempt": 2, "status": Status.COMPLETED, "reason": "stop"})
    squatter = terminal(tenant="globex", request_id=first.request_id, tokens=(1, 1))
    async with start_billing():
        for fact in (squatter, first, second):
            await operator.publish(fact)
        sums = reported(await operator.caught_up())
        assert sums["acme", "small"][:3] == (1, 20, 10)
        assert sums["globex", "small"][:3] == (1, 1, 1)


async def test_failed_attempts_are_billed_once_and_beside_the_end(
    start_billing: StartBilling, operator: Operator
) -> None:
    """What a failed attempt generated counts, whichever order replicas see it in (I2, I3)."""
    ended = terminal(attempt=2, tokens=(10, 20))
    failed = failed_attempt(ended, (100, 40))
    async with start_billing():
        await operator.publish(ended)
        for _ in range(2):
            await operator.publish_failed(failed)
        sums = reported(await operator.caught_up())
        assert sums["acme", "small"] == (1, 110, 60, 145)


async def test_a_new_database_reads_the_log_again(
    start_billing: StartBilling, operator: Operator, postgres_dsn: str
) -> None:
    """The ledger is a projection: emptied, and its rebuilding asked for, it comes back (I9)."""
    facts = terminals(random.Random(7), 50)
    async with start_billing():
        await asyncio.gather(*(operator.publish(fact) for fact in facts))
        await operator.caught_up()
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("truncate billing.usage")
    await connection.execute("insert into billing.rebuild default values")
    await connection.close()
    async with start_billing():

        async def is_back() -> bool:
            return reported(await operator.caught_up()) == expected(facts)

        await eventually(is_back)
