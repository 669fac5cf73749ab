"""The demo tenant and its first API key, so that a fresh stack answers at once."""

from typing import NamedTuple

from penstock.operator_bus import OperatorBus, RefusedError, operator_bus
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreatedKey, CreateKey, CreateTenant
from penstock_shared.contracts.accounts import TenantRecord

DEMO_TENANT = "demo"
_EXISTS = "already_exists"


class DemoTenant(NamedTuple):
    """The tenant that `penstock up` provides."""

    tenant: str
    api_key: str


async def ensure_demo_tenant(nats_url: str, known_key: str | None) -> DemoTenant:
    """Create the demo tenant unless it exists, and a key unless `known_key` is one of its.

    Raises:
        OperatorError: Billing does not answer, or refuses.
    """
    async with operator_bus(nats_url) as bus:
        is_new = await _create_tenant(bus)
        # A tenant that had to be created cannot have issued the key that we know.
        if known_key is not None and not is_new:
            return DemoTenant(DEMO_TENANT, known_key)
        wish = CreateKey(tenant=DEMO_TENANT, name="bootstrap")
        created = await bus.ask(subjects.accounts("create-key"), wish, CreatedKey)
        return DemoTenant(DEMO_TENANT, created.secret)


async def _create_tenant(bus: OperatorBus) -> bool:
    """Create the tenant; False when it exists already."""
    wish = CreateTenant(tenant=DEMO_TENANT, name="Demo")
    try:
        await bus.ask(subjects.accounts("create-tenant"), wish, TenantRecord)
    except RefusedError as error:
        if error.code == _EXISTS:
            return False
        raise
    return True
