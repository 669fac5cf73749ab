"""A log that was written once, and the figures that it gave: they never change (I9)."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from penstock_billing.adapters.postgres_roles import migrate_billing
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.metering import distinct, meter
from penstock_shared.runtime.postgres import Postgres

DATA: Final = Path(__file__).parents[2] / "data" / "billing"
"""`log.jsonl`: facts as they stand in EVENTS, a line each, and the cut of a month among them.
`figures.json`: every table of figures. Both stay; a change of the contract adds another pair."""
TABLES: Final = {
    "usage_days": "tenant, period, day, kind, model",
    "usage_minutes": "tenant, minute, kind, model, key_id",
    "usage_users": "tenant, day, kind, model, key_id, data_subject",
    "balances": "tenant, period, account",
}


async def test_the_old_log_gives_the_old_figures(postgres_dsn: str) -> None:
    """Month ends, time zones, a leap day, a clock ahead, cached tokens, calls, an escalation.

    Copies, too, facts that come after their month was cut, and one that used nothing.
    """
    figures = await read((DATA / "log.jsonl").read_text().splitlines(), postgres_dsn)
    assert figures == json.loads((DATA / "figures.json").read_text())


async def read(lines: list[str], dsn: str) -> dict[str, Any]:
    """Line by line, as the consumer delivers them."""
    await migrate_billing(SecretStr(dsn))
    postgres = await Postgres.connect(SecretStr(dsn), name="test", connections=1)
    ledger = PostgresUsage(postgres)
    for line in map(json.loads, lines):
        if "cut" in line:
            month = date.fromisoformat(line["cut"])
            await postgres.fetch(
                "insert into billing.periods (tenant, period, status, cut_seq, cut_at) "
                "values ($1, $2, 'closing', $3, now())",
                line["tenant"],
                month,
                line["seq"],
            )
            continue
        fact, stored = json.dumps(line["fact"]).encode(), datetime.fromisoformat(line["stored"])
        row = meter(line["type"], line["subject"], line["seq"], stored, fact)
        await ledger.record(distinct([row]))
    figures = {
        table: [
            {name: _plain(value) for name, value in row.items()}
            for row in await postgres.fetch(f"select * from billing.{table} order by {place}")  # noqa: S608
        ]
        for table, place in TABLES.items()
    }
    await postgres.close()
    return figures


def _plain(value: Any) -> str | int:
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str) else int(value)
