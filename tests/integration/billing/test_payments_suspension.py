"""A tenant that does not pay, through billing as it runs: what the other services get to see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
from tests.support.billing import Operator, StartBilling, eventually

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.accounts import SuspensionReason, TenantRecord, TenantStatus
from penstock_shared.contracts.payments import ListStandings, Standing, StandingList
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

TOLD = subjects.topic_event("acme", "billing", "standing-changed")


async def _record(broker: Broker) -> TenantRecord:
    entry = (await kv.read_bucket(broker, Bucket.TENANTS))["acme"]
    return TenantRecord.model_validate_json(entry.data)


async def test_the_bucket_and_the_log_tell_of_suspension_and_its_end(
    start_billing: StartBilling, operator: Operator, broker: Broker, postgres_dsn: str
) -> None:
    """What realtime and the routers watch says `past_due` until it is paid; EVENTS keeps why."""
    async with start_billing(payments_interval_s=0.05):
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        failing_since = datetime.now(UTC) - timedelta(days=15)
        connection = await asyncpg.connect(postgres_dsn)
        try:
            await connection.execute(
                """insert into billing.invoices (tenant, period, number, usage_microusd,
                       subtotal_microusd, credit_microusd, due_microusd, events_seq, issued_at)
                   values ('acme', '2026-07-01', 'acme-2026-07', 50000, 50000, 0, 50000, 1, $1)""",
                failing_since,
            )
            await connection.execute(
                "update billing.collections set failing_since = $1", failing_since
            )

            async def is_suspended() -> bool:
                return (await _record(broker)).status is TenantStatus.SUSPENDED

            await eventually(is_suspended)
            assert (await _record(broker)).suspended_reason is SuspensionReason.PAST_DUE
            answer = await operator.ask(subjects.billing("list-standings"), ListStandings())
            standings = StandingList.model_validate_json(answer).standings
            assert [one.standing for one in standings] == [Standing.SUSPENDED]

            await connection.execute(
                "update billing.collections set paid_cents = cents, failing_since = null"
            )

            async def is_active() -> bool:
                return (await _record(broker)).status is TenantStatus.ACTIVE

            await eventually(is_active)

            async def is_told() -> bool:
                last = await broker.last_message(EVENTS, TOLD)
                return last is not None and b'"standing":"restored"' in last.data

            await eventually(is_told)
        finally:
            await connection.close()
