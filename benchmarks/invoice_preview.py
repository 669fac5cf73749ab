"""The preview of an invoice, over the bus, of a tenant with millions of attempts in the month.

The tenant changes its plan within the month, has tiers for one of its models, included usage, a
minimum and credit. Beside it, what the preview would have to wait for without sums by day: the
month's rows, added up by PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from benchmarks.harness import metered, stack
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_shared.contracts import subjects
from penstock_shared.contracts.invoice_commands import PreviewInvoice
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.contracts.plans import Meter, PlanTerms, Tier, TieredCharge
from penstock_shared.runtime.broker import Broker

AIM_MS: Final = 100.0
ATTEMPTS: Final = (1_000_000, 10_000_000)
_TENANT: Final = "tenant-0"
_ONLY_BILLING: Final = {"PENSTOCK_SERVICES": "billing"}
_TERMS: Final = PlanTerms(
    title="Team",
    fee_microusd=50_000_000,
    included_microusd=10_000_000,
    minimum_microusd=60_000_000,
    tiers=(
        TieredCharge(
            model="model-1",
            meter=Meter.OUTPUT_TOKENS,
            tiers=(Tier(up_to=10_000_000, microusd=900), Tier(microusd=700)),
        ),
    ),
)
_SUBSCRIBE: Final = """
insert into billing.subscriptions (tenant, from_day, plan, version, terms, assigned_at)
select $1, $2::date + n, 'pay-as-you-go', 1, $3, now() from unnest(array[0, 5]) as n"""
_GRANT: Final = """
insert into billing.grants
    (grant_id, tenant, kind, microusd, priority, expires_on, reference, granted_at)
select gen_random_uuid(), $1, 'promotional', 1000000, n, $2::date + 3 * n, 'bench ' || n, now()
from generate_series(1, 5) as n"""
_ADD_UP: Final = """
select (accepted_at at time zone 'UTC')::date, model, count(*), sum(input_tokens),
       sum(output_tokens), sum(cost_microusd)
from billing.usage where tenant = $1 and period = $2 group by 1, 2"""


def run(options: Options) -> Report:
    """With more and more attempts in the same month."""
    with stack.running(_ONLY_BILLING) as running:
        running.operator("tenants", "create", _TENANT, "--name", "Benchmark")
        figures = asyncio.run(_measure(running, options))
    rows = [
        (
            f"{one['attempts']:,}",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['add_up_ms']:,.0f}",
        )
        for one in figures
    ]
    slowest_ms = max(one["p99_ms"] for one in figures)
    return Report(
        name="invoice_preview",
        grids=[
            Grid(
                "A preview over the bus",
                ("attempts in the month", "p50 ms", "p99 ms", "adding up the rows, ms"),
                tuple(rows),
            )
        ],
        figures={"rows": figures},
        aims=[
            Aim(
                f"a preview takes less than {AIM_MS:g} ms, however much was used",
                f"{slowest_ms:.1f} ms at p99",
                slowest_ms < AIM_MS,
            )
        ],
    )


async def _measure(running: stack.Stack, options: Options) -> list[dict[str, Any]]:
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    place = str(running.ready["postgres"]).rpartition("@")[2]
    password = running.secret("postgres_superuser_password")
    admin = await asyncpg.connect(f"postgresql://postgres:{password}@{place}")
    broker = await Broker.connect(running.bus_url, name="bench")
    await admin.execute(_SUBSCRIBE, _TENANT, month.date(), _TERMS.model_dump_json())
    await admin.execute(_GRANT, _TENANT, month.date())
    figures, there = [], 0
    for attempts in (20_000,) if options.quick else ATTEMPTS:
        # Whatever the day is today: all of it lies within the month.
        end = month + timedelta(days=attempts / 1_000_000)
        await metered.add_history(admin, attempts - there, end, tenants=1)
        there = attempts
        await _preview(broker)  # connects
        asked = 50 if options.quick else 500
        previews_s = [await _timed(lambda: _preview(broker)) for _ in range(asked)]
        added_up_s = await _timed(lambda: admin.fetch(_ADD_UP, _TENANT, month.date()))
        figures.append(
            {
                "attempts": attempts,
                "p50_ms": percentile(previews_s, 0.5) * 1000,
                "p99_ms": percentile(previews_s, 0.99) * 1000,
                "add_up_ms": added_up_s * 1000,
            }
        )
    await broker.close()
    await admin.close()
    return figures


async def _preview(broker: Broker) -> None:
    question = PreviewInvoice(tenant=_TENANT).model_dump_json(exclude_unset=True).encode()
    reply = await broker.request(subjects.billing("preview-invoice"), question, timeout_s=60)
    if "error" in json.loads(reply.data):
        msg = f"billing refuses: {reply.data.decode()}"
        raise stack.StackError(msg)
    if not Invoice.model_validate_json(reply.data).usage_microusd:
        msg = "the preview knows of no usage"
        raise stack.StackError(msg)


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    started_s = time.perf_counter()
    await work()
    return time.perf_counter() - started_s
