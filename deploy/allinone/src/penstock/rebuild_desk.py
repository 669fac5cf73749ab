"""The bookkeeper's desk: does the sums again from the event log, beside the running service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from pydantic import SecretStr

from penstock.errors import OperatorError
from penstock.stack_locator import Connections
from penstock_billing.adapters.nats_event_log import NatsEventLog
from penstock_billing.adapters.nats_position import NatsEventPosition
from penstock_billing.adapters.postgres_rebuild import opened
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.handlers.rebuild import Progress, Rebuild, Rebuilt, Replacement
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.postgres import Postgres

_NAME = "penstock-billing-rebuild"
# One writes rows, one holds the lock and compares.
_CONNECTIONS = 2


def rebuild(stack: Connections, wait_s: float, progress: Progress) -> Rebuilt:
    """Read the log into fresh tables and compare; nothing live is changed.

    Raises:
        OperatorError: A server does not answer, or billing is further behind than `wait_s`.
    """
    return asyncio.run(_rebuild(stack, wait_s, progress))


def replace(stack: Connections) -> int:
    """Have the log read again into the live tables; returns up to where it goes.

    Raises:
        OperatorError: A server does not answer, or the log has lost its beginning.
    """
    return asyncio.run(_replace(stack))


async def _rebuild(stack: Connections, wait_s: float, progress: Progress) -> Rebuilt:
    # Quotas were not counted before a tenant had its first, in a month that may be this one.
    since = datetime.now(UTC).date().replace(day=1)
    async with _servers(stack) as (broker, postgres), opened(postgres) as fresh:
        again = Rebuild(NatsEventLog(broker), fresh, NatsEventPosition(broker))
        return await again.run(since, wait_s, progress)


async def _replace(stack: Connections) -> int:
    async with _servers(stack) as (broker, postgres):
        log, reader = NatsEventLog(broker), NatsEventPosition(broker)
        return await Replacement(log, PostgresUsage(postgres), reader).run()


@asynccontextmanager
async def _servers(stack: Connections) -> AsyncIterator[tuple[Broker, Postgres]]:
    """As the database's owner: fresh tables need a schema, and services may not make one."""
    if stack.postgres_dsn is None:
        raise OperatorError(
            "Where PostgreSQL is is not known.",
            "Set PENSTOCK_POSTGRES_DSN to billing's database, as its owner.",
        )
    try:
        broker = await Broker.connect(stack.nats_url, name=_NAME)
        try:
            postgres = await Postgres.connect(
                SecretStr(stack.postgres_dsn), name=_NAME, connections=_CONNECTIONS
            )
            try:
                yield broker, postgres
            finally:
                await postgres.close()
        finally:
            await broker.close()
    except PenstockError as error:
        raise OperatorError(error.message, f"(error code: {error.code})") from error
