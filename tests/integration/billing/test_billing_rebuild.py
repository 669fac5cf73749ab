"""Doing the sums again from the log: identical figures, or every difference (I2, I9)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from tests.support.billing import Operator, StartBilling, failed_attempt, terminal, terminals

from penstock_billing.adapters.nats_event_log import NatsEventLog
from penstock_billing.adapters.nats_position import NatsEventPosition
from penstock_billing.adapters.postgres_rebuild import opened
from penstock_billing.adapters.postgres_roles import migrate_billing
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.handlers.rebuild import Rebuild, Rebuilt, Replacement
from penstock_billing.ports.rebuild import MOST_DIFFERENCES
from penstock_shared.contracts.account_commands import CreateTenant, UpdateTenant
from penstock_shared.contracts.errors import ConflictError, UnavailableError
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime import migrations
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.postgres import Postgres

FIGURES = ("usage", "usage_days", "usage_minutes", "usage_users", "balances", "quota_use")


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """The database as its owner, who may make schemas."""
    connected = await Postgres.connect(SecretStr(postgres_dsn), name="test", connections=4)
    yield connected
    await connected.close()


async def rebuild(broker: Broker, postgres: Postgres, wait_s: float = 15) -> Rebuilt:
    """As the command does it; all days' quotas are compared."""
    async with opened(postgres) as fresh:
        again = Rebuild(NatsEventLog(broker), fresh, NatsEventPosition(broker))
        return await again.run(date(2020, 1, 1), wait_s, lambda *_: None)


async def write_log(operator: Operator, seed: int) -> int:
    """Facts of every sort, copies and nonsense among them; returns how many attempts there are."""
    rng = random.Random(seed)
    ended = [varied(fact, rng, number) for number, fact in enumerate(terminals(rng, 40))]
    escalated = terminal(attempt=2, tokens=(3, 4))
    for fact in [*ended, *rng.sample(ended, 8), escalated]:
        await operator.publish(fact)
    await operator.publish_failed(failed_attempt(escalated, (100, 200)))
    await operator.publish_raw("v1.acme.events.request.nonsense", b"{}")
    await operator.publish_raw("v1.acme.events.other.topic", b"{}")
    return len(ended) + 2


def varied(fact: RequestEnded, rng: random.Random, number: int) -> RequestEnded:
    """The same request at another time, by somebody else, with calls and cached tokens."""
    at = datetime(2026, rng.randrange(1, 12), rng.choice((1, 15, 28)), 23, 59, 59, tzinfo=UTC)
    cached = min(number, fact.usage.input_tokens)
    usage = fact.usage + Usage(input_tokens=0, output_tokens=0, tool_calls=number % 3)
    return fact.model_copy(
        update={
            "data_subject": f"user-{number % 4}",
            "key_id": f"key_{number % 3}",
            "usage": usage.model_copy(update={"cached_input_tokens": cached}),
            "price": Price(
                input_microusd_per_1k=500,
                cached_input_microusd_per_1k=50,
                output_microusd_per_1k=1500,
                tool_call_microusd=7,
            ),
            "routed_at": at + timedelta(seconds=rng.randrange(3)),
        }
    )


async def test_the_log_gives_the_figures_that_stand(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """All tables agree with the log, whatever it holds; nothing live is touched or left over."""
    async with start_billing(batch_limit=7):
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        quota = Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.MONTH, limit=10**9)
        await operator.command("update-tenant", UpdateTenant(tenant="acme", quotas=(quota,)))
        attempts = await write_log(operator, 1)
        await operator.caught_up()
        before = await contents(postgres)
        rebuilt = await rebuild(broker, postgres)
        assert (rebuilt.attempts, rebuilt.unfit, list(rebuilt.differences)) == (attempts, 1, [])
        assert await contents(postgres) == before
    assert not await postgres.fetch("select from pg_namespace where nspname = 'billing_rebuild'")


SPOILT = {
    "attempts": "insert into billing.usage (tenant, request_id, attempt, event_seq, model, key_id,"
    " status, input_tokens, output_tokens, cost_microusd, ended_at) values"
    " ('acme', gen_random_uuid(), 1, 1, 'm', 'k', 'completed', 1, 1, 0, now())",
    "days": "update billing.usage_days set tool_calls = tool_calls + 1 where tenant = 'acme'",
    "minutes": "delete from billing.usage_minutes where tenant = 'globex'",
    "users": "update billing.usage_users set requests = 0",
    "ledger": "insert into billing.transfers (tenant, period, kind, debit, credit, microusd,"
    " reference) values ('acme', '2026-05-01', 'usage', 'receivable', 'usage', 1, 'mine')",
    "balances": "update billing.balances set debit = debit + 1 where account = 'receivable'",
}


async def test_a_thousand_differences_of_a_kind_are_enough(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """However much differs, what is told of it fits into memory."""
    async with start_billing():
        await operator.publish(terminal())
        await operator.caught_up()
        await postgres.fetch(
            "insert into billing.usage (tenant, request_id, attempt, event_seq, model, key_id,"
            " status, input_tokens, output_tokens, cost_microusd, ended_at)"
            " select 'acme', gen_random_uuid(), 1, 1, 'm', 'k', 'completed', 1, 1, 0, now()"
            " from generate_series(0, $1)",
            MOST_DIFFERENCES,
        )
        found = (await rebuild(broker, postgres)).differences
    assert sum(one.figure == "attempts" for one in found) == MOST_DIFFERENCES


@pytest.mark.parametrize("figure", SPOILT)
async def test_every_difference_is_told(
    figure: str,
    operator: Operator,
    start_billing: StartBilling,
    broker: Broker,
    postgres: Postgres,
) -> None:
    """Whoever changed, added or removed something: the table and the place are named."""
    async with start_billing():
        await write_log(operator, 2)
        await operator.caught_up()
        await postgres.fetch(SPOILT[figure])
        found = (await rebuild(broker, postgres)).differences
    assert figure in {difference.figure for difference in found}
    assert all(difference.live != difference.rebuilt for difference in found)
    assert {difference.place["tenant"] for difference in found} <= {"acme", "globex"}


async def test_what_comes_meanwhile_is_no_difference(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """Facts after the log's end at the start are live already, and are taken as they are."""

    class Moving(NatsEventLog):
        """Its end is known; then another fact is written, and metered."""

        async def span(self) -> Any:
            span = await super().span()
            await operator.publish(terminal())
            await operator.caught_up()
            return span

    async with start_billing():
        await operator.publish(terminal())
        await operator.caught_up()
        async with opened(postgres) as fresh:
            again = Rebuild(Moving(broker), fresh, NatsEventPosition(broker))
            rebuilt = await again.run(date(2020, 1, 1), 5, lambda *_: None)
    assert (rebuilt.attempts, list(rebuilt.differences)) == (1, [])


async def test_a_log_without_its_beginning(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """What was purged cannot be compared and is no difference; reading it again is refused."""
    async with start_billing():
        for fact in terminals(random.Random(3), 10):
            await operator.publish(fact)
        await operator.caught_up()
        await broker.jetstream.purge_stream("EVENTS", seq=5)
        rebuilt = await rebuild(broker, postgres)
        assert (rebuilt.span.first_seq, rebuilt.attempts, list(rebuilt.differences)) == (5, 6, [])
        with pytest.raises(ConflictError, match="begins at 5"):
            await replacement(broker, postgres).run()
        assert len((await operator.usage()).rows) > 0


async def test_one_at_a_time_and_only_when_billing_has_read_all(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """A second one is refused; one of a log that is not metered yet says how far it is.

    What a rebuild that died has left does not hold up the next.
    """
    async with start_billing():
        await operator.caught_up()
    await postgres.fetch("create schema billing_rebuild")
    await operator.publish(terminal())
    async with opened(postgres):
        with pytest.raises(ConflictError, match="Another rebuild"):
            await rebuild(broker, postgres)
    with pytest.raises(UnavailableError, match=r"up to \d+ of \d+"):
        await rebuild(broker, postgres, wait_s=0.3)


async def test_the_log_is_read_again_into_the_live_tables(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """While billing runs: spoilt figures are right again, and the ledger only ever grew."""
    async with start_billing():
        await write_log(operator, 4)
        await operator.caught_up()
        right = await contents(postgres)
        posted = await postgres.fetch("select id from billing.transfers")
        await postgres.fetch(SPOILT["days"])
        await postgres.fetch(SPOILT["attempts"])
        await replacement(broker, postgres).run()
        assert list((await rebuild(broker, postgres)).differences) == []
        now = await contents(postgres)
    assert {name: now[name] for name in FIGURES[:4]} == {name: right[name] for name in FIGURES[:4]}
    assert net(now["balances"]) == net(right["balances"])
    kept = await postgres.fetch("select id from billing.transfers")
    assert {row["id"] for row in posted} < {row["id"] for row in kept}


async def test_what_an_older_release_writes_meanwhile_is_put_right(
    operator: Operator, start_billing: StartBilling, broker: Broker, postgres: Postgres
) -> None:
    """It knows twelve columns: what it meters is in sums and ledger at once, if not as it was.

    Reading the log again then gives what this release would have written.
    """
    async with start_billing():
        await operator.caught_up()
    fact = terminal(data_subject="ann", tokens=(100, 10))
    await postgres.fetch(
        "insert into billing.usage values ($1, $2, 1, 1, 'small', 'key_1', 'completed', 100, 10, "
        "65, $3, $4)",
        fact.tenant,
        fact.request_id,
        fact.ended_at,
        fact.ended_at.date(),
    )
    await operator.publish(fact)
    async with start_billing():
        await operator.caught_up()
        found = {one.figure for one in (await rebuild(broker, postgres)).differences}
        assert found == {"attempts", "days", "minutes", "users", "ledger"}
        await replacement(broker, postgres).run()
        assert list((await rebuild(broker, postgres)).differences) == []
        users = await postgres.fetch("select data_subject, cost_microusd from billing.usage_users")
        assert [tuple(row) for row in users] == [("ann", 65)]


async def test_transfers_are_only_ever_added(
    operator: Operator, start_billing: StartBilling, postgres_dsn: str
) -> None:
    """Not even the owner changes, deletes or empties them."""
    async with start_billing():
        await operator.publish(terminal())
        await operator.caught_up()
        connection = await asyncpg.connect(postgres_dsn)
        for change in (
            "update billing.transfers set microusd = 1",
            "delete from billing.transfers",
            "truncate billing.transfers",
        ):
            with pytest.raises(asyncpg.RestrictViolationError, match="only ever added to"):
                await connection.execute(change)
        await connection.close()


def replacement(broker: Broker, postgres: Postgres) -> Replacement:
    return Replacement(NatsEventLog(broker), PostgresUsage(postgres), NatsEventPosition(broker))


def net(balances: set[Any]) -> dict[tuple[Any, ...], int]:
    """What stands on each account, debits less credits."""
    return {
        (row["tenant"], row["period"], row["account"]): row["debit"] - row["credit"]
        for row in map(dict, balances)
        if row["debit"] != row["credit"]
    }


async def contents(postgres: Postgres) -> dict[str, set[Any]]:
    """Everything in the live tables; of attempts all but the place in the log."""
    found = {}
    for table in FIGURES:
        rows = map(dict, await postgres.fetch(f"select * from billing.{table}"))  # noqa: S608
        found[table] = {
            tuple((name, value) for name, value in row.items() if name != "event_seq")
            for row in rows
        }
    return found


async def test_what_was_metered_before_the_ledger_is_kept(
    postgres_dsn: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade has the log read again, and drops no row: the log may have lost it (I2)."""
    all_scripts = migrations._scripts
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_scripts", lambda package: all_scripts(package)[:5])
        await migrate_billing(SecretStr(postgres_dsn))
    await postgres.fetch(
        "insert into billing.usage select 'acme', gen_random_uuid(), 1, 7, 'small', 'key_1',"
        " 'completed', 10, 20, 300, now()"
    )
    await postgres.fetch("delete from billing.rebuild")
    await migrate_billing(SecretStr(postgres_dsn))
    assert await postgres.fetchval("select count(*) from billing.usage") == 0
    assert await postgres.fetchval("select count(*) from billing.rebuild") == 1
    kept = await postgres.fetch("select event_seq, cost_microusd from billing.usage_before_ledger")
    assert [tuple(row) for row in kept] == [(7, 300)]
