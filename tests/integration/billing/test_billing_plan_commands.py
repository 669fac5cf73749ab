"""Plans, published and assigned, from the operator's command to the routers' bucket."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from tests.integration.billing.test_billing_commands import Terminal
from tests.support.billing import Operator, StartBilling
from tests.support.router import model_record

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.billing_facts import PlanAssigned, PlanPublished
from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.contracts.plan_commands import (
    AssignPlan,
    ListSubscriptions,
    PlanOverrides,
    PublishPlan,
    SubscriptionList,
)
from penstock_shared.contracts.plans import PlanTerms, PlanVersion, Subscription, TenantPrices
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision

PRICE = Price(input_microusd_per_1k=5, output_microusd_per_1k=7)
TEAM = PlanTerms(title="Team", fee_microusd=20_000_000, prices={"small": PRICE})


def today() -> date:
    """In UTC."""
    return datetime.now(UTC).date()


@pytest.fixture
async def platform(operator: Operator, start_billing: StartBilling, broker: Broker) -> Any:
    """Billing, a tenant, a model, and the plan `team`."""
    await provision(broker, 1)
    await kv.put(broker, Bucket.MODELS, "small", model_record("small").model_dump_json().encode())
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        await publish(operator, TEAM)
        yield operator


async def publish(operator: Operator, terms: PlanTerms, plan: str = "team") -> PlanVersion:
    """The plan's version."""
    command = PublishPlan(plan=plan, terms=terms)
    return PlanVersion.model_validate_json(
        await operator.ask(subjects.billing("publish-plan"), command)
    )


async def assign(operator: Operator, **fields: Any) -> Subscription:
    """What was assigned to Acme."""
    command = AssignPlan(**{"tenant": "acme", "plan": "team", **fields})
    return Subscription.model_validate_json(
        await operator.ask(subjects.billing("assign-plan"), command)
    )


async def refusal(operator: Operator, verb: str, body: Any) -> str:
    """The code of the error that a command is answered with."""
    answer = await operator.ask(subjects.billing(verb), body)
    return ErrorReply.model_validate_json(answer).error.code


async def prices(broker: Broker) -> TenantPrices | None:
    """What routers see of Acme's prices."""
    entry = await kv.last_entry(broker, Bucket.PRICES, "acme")
    return None if entry is None else TenantPrices.model_validate_json(entry.data)


async def test_an_assigned_plan_is_what_routers_price_by(
    platform: Operator, broker: Broker
) -> None:
    """When the command is answered the bucket holds the prices, and EVENTS both facts."""
    done = await assign(platform, overrides=PlanOverrides(fee_microusd=1))
    assert (done.from_day, done.version, done.terms.fee_microusd) == (today(), 1, 1)
    published = await prices(broker)
    assert published is not None
    assert published.on(today()) == {"small": PRICE}
    for tenant, fact in (("platform", PlanPublished), ("acme", PlanAssigned)):
        subject = subjects.topic_event(tenant, "billing", fact.FACT)
        message = await broker.last_message(EVENTS, subject)
        assert message is not None
        assert fact.model_validate_json(message.data).tenant == tenant


async def test_the_same_command_again_changes_nothing(platform: Operator, broker: Broker) -> None:
    """An answer that was lost is asked for again: no version, no row and no fact is added."""
    again = await publish(platform, TEAM)
    assert again.version == 1
    first = await assign(platform)
    last = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
    assert await assign(platform) == first
    assert (await broker.jetstream.stream_info(EVENTS)).state.last_seq == last


async def test_a_new_version_changes_nobodys_prices(platform: Operator, broker: Broker) -> None:
    """Who has the first version keeps it until another is assigned; two at once are two."""
    await assign(platform)
    cheaper, cheapest = (TEAM.model_copy(update={"fee_microusd": fee}) for fee in (2, 1))
    both = await asyncio.gather(publish(platform, cheaper), publish(platform, cheapest))
    assert {one.version for one in both} == {2, 3}
    found = SubscriptionList.model_validate_json(
        await platform.ask(subjects.billing("list-subscriptions"), ListSubscriptions())
    )
    assert [(one.version, one.terms) for one in found.subscriptions] == [(1, TEAM)]


async def test_a_plan_to_come_is_announced_and_its_limits_with_it(
    platform: Operator, broker: Broker
) -> None:
    """Routers know prices and limits before the day on which they hold."""
    tomorrow = today() + timedelta(days=1)
    await assign(platform)
    await publish(platform, PlanTerms(title="Prepaid", overage=False), "prepaid")
    await assign(platform, plan="prepaid", from_day=tomorrow)
    published = await prices(broker)
    assert published is not None
    assert (published.on(today()), published.on(tomorrow)) == ({"small": PRICE}, {})
    entry = await kv.last_entry(broker, Bucket.TENANTS, "acme")
    assert entry is not None
    assert TenantRecord.model_validate_json(entry.data).limited_from == tomorrow
    await assign(platform, from_day=tomorrow)  # thought better of
    entry = await kv.last_entry(broker, Bucket.TENANTS, "acme")
    assert entry is not None
    assert TenantRecord.model_validate_json(entry.data).limited_from is None


async def test_what_cannot_be_is_refused_by_name(platform: Operator) -> None:
    """Unknown plans, versions, models, tenants, currencies; days gone by and too far ahead."""

    async def refused(**fields: Any) -> str:
        command = AssignPlan(**{"tenant": "acme", "plan": "team", **fields})
        return await refusal(platform, "assign-plan", command)

    assert await refused(plan="gone") == "plan_not_found"
    assert await refused(version=7) == "plan_not_found"
    assert await refused(tenant="nobody") == "tenant_not_found"
    assert await refused(from_day=today() - timedelta(days=1)) == "day_out_of_range"
    assert await refused(from_day=date(9999, 12, 31)) == "day_out_of_range"
    assert await refused(overrides=PlanOverrides(prices={"none": PRICE})) == "model_not_found"
    unknown = TEAM.model_copy(update={"prices": {"none": PRICE}})
    command = PublishPlan(plan="team", terms=unknown)
    assert await refusal(platform, "publish-plan", command) == "model_not_found"
    default = PublishPlan(plan="pay-as-you-go", terms=TEAM)
    assert await refusal(platform, "publish-plan", default) == "reserved_name"
    foreign = TEAM.model_copy(update={"currency": "EUR"})
    command = PublishPlan.model_construct(plan="team", terms=foreign)
    assert await refusal(platform, "publish-plan", command) == "invalid_schema"
    for days in range(1, 7):
        await assign(platform, from_day=today() + timedelta(days=days))
    assert await refused(from_day=today() + timedelta(days=7)) == "too_many_changes"


async def test_a_plan_cannot_change_in_a_month_that_closes(
    platform: Operator, postgres_dsn: str
) -> None:
    """Whichever comes first, the other sees it: what a month is rated by does not move."""
    connection = await asyncpg.connect(postgres_dsn)
    month = today().replace(day=1)
    closing = (
        "insert into billing.periods (tenant, period, status, cut_seq, cut_at) "
        "values ('acme', $1, 'closing', 1, now())"
    )
    async with connection.transaction():
        await connection.execute(closing, month)
        waiting = asyncio.create_task(
            refusal(platform, "assign-plan", AssignPlan(tenant="acme", plan="team"))
        )
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == "period_closed"
    following = (month + timedelta(days=32)).replace(day=1)
    assert (await assign(platform, from_day=following)).from_day == following
    await connection.close()


async def test_a_published_version_never_changes(platform: Operator, postgres_dsn: str) -> None:
    """Not even by hand."""
    connection = await asyncpg.connect(postgres_dsn)
    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute("update billing.plan_versions set terms = '{}'")
    await connection.close()


async def test_an_operator_at_the_terminal(
    platform: Operator, nats_url: str, tmp_path: Any
) -> None:
    """Publish from a file, look, assign, list; a slip in the file is named."""
    terminal = Terminal(nats_url)
    file = tmp_path / "pro.json"
    file.write_text('{"title": "Pro", "fee_microusd": 50000000, "overage": false}')
    status, out, _ = await terminal.run("plans", "publish", "pro", str(file))
    assert (status, "version 1" in out) == (0, True)
    _, out, _ = await terminal.run("plans", "list")
    assert "$50.000000" in out
    assert "pay-as-you-go" in out
    _, out, _ = await terminal.run("plans", "show", "pro")
    assert PlanTerms.model_validate_json(out) == PlanTerms.model_validate_json(file.read_text())
    status, out, _ = await terminal.run("plans", "assign", "acme", "pro")
    assert (status, f"from {today()} on" in out) == (0, True)
    _, out, _ = await terminal.run("plans", "subscriptions", "acme", "--json")
    assert SubscriptionList.model_validate_json(out).subscriptions[0].plan == "pro"
    file.write_text('{"title": "Pro", "currency": "EUR"}')
    status, _, error = await terminal.run("plans", "publish", "pro", str(file))
    assert (status, "currency" in error) == (1, True)
