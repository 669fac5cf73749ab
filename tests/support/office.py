"""A tenant at an edge that stands in front of a real billing: its keys, one of each role."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from tests.support.billing import Operator
from tests.support.realtime import Edge

from penstock_billing.app import create_app
from penstock_billing.settings import Settings
from penstock_shared.contracts.account_commands import CreatedKey, CreateKey, CreateTenant
from penstock_shared.contracts.accounts import Role


class Office:
    """An edge in front of billing, and the secrets of one tenant."""

    def __init__(self, edge: Edge, operator: Operator, tenant: str) -> None:
        self.edge, self.operator, self.tenant = edge, operator, tenant
        self.secrets: dict[Role, str] = {}

    async def hire(self) -> None:
        await self.operator.command(
            "create-tenant", CreateTenant(tenant=self.tenant, name=self.tenant)
        )
        for role in Role:
            wish = CreateKey(tenant=self.tenant, name=role.value, role=role)
            answer = await self.operator.command("create-key", wish)
            self.secrets[role] = CreatedKey.model_validate_json(answer).secret
        async with self.edge.http(self.secrets[Role.READ_ONLY]) as client:
            await until_status(client, 200)

    def http(self, role: Role = Role.ADMIN) -> httpx.AsyncClient:
        return self.edge.http(self.secrets[role])


async def until_status(client: httpx.AsyncClient, status: int) -> None:
    """The watches carry a change within a second."""
    async with asyncio.timeout(2):
        while (await client.get("models")).status_code != status:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running_billing(
    nats_url: str, postgres_dsn: str, folder: Path
) -> AsyncIterator[AsyncExitStack]:
    """Billing as in production; closing the stack takes it away."""
    key = folder / "billing.key"
    key.write_text(base64.b64encode(os.urandom(32)).decode())
    async with AsyncExitStack() as running:
        values = {"nats_url": nats_url, "postgres_dsn": postgres_dsn, "root_key_file": key}
        app = create_app(Settings.model_validate(values))
        running.push_async_callback(app.stop)
        await app.start()
        yield running
