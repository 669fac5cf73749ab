"""Commands about credit: granted, looked at; and corrections of what is owed."""

from __future__ import annotations

from datetime import UTC

from penstock_billing.domain.announcements import Act, tell_fact
from penstock_billing.domain.credits import (
    adjustment_transfer,
    grant_transfer,
    new_grant,
    refuse_other_adjustment,
    refuse_other_grant,
)
from penstock_billing.handlers.accounts import Relay
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.ports.credits import CreditStore
from penstock_shared.contracts.billing_facts import ChargesAdjusted, CreditGranted
from penstock_shared.contracts.credits import (
    Adjust,
    AdjustmentMade,
    CreditGrant,
    CreditList,
    GrantCredit,
    ListCredits,
)
from penstock_shared.runtime.telemetry import log


class CreditCommands:
    """Answers commands. An answer is sent after its fact is published."""

    def __init__(self, store: CreditStore, relay: Relay) -> None:
        self._store = store
        self._relay = relay
        self.verbs: dict[str, Verb] = {
            "grant-credit": self._grant,
            "list-credits": self._list,
            "adjust": self._adjust,
        }

    async def _grant(self, payload: bytes, act: Act) -> CreditGrant:
        command = parse_command(GrantCredit, payload)
        async with self._store.transaction() as transaction:
            await transaction.accounts.lock_tenant(command.tenant)
            grant = await transaction.grant(command.tenant, command.reference)
            if grant is not None:
                refuse_other_grant(grant, command)
            else:
                grant = new_grant(command, act.at)
                await transaction.add_grant(grant)
                await transaction.post([grant_transfer(grant)])
                fact = CreditGranted(tenant=grant.tenant, grant=grant)
                await transaction.accounts.enqueue([tell_fact(fact, act)])
                log().info("credit.granted", tenant=grant.tenant, grant_id=grant.grant_id)
        await self._relay.flush()
        return grant

    async def _list(self, payload: bytes, act: Act) -> CreditList:
        query = parse_command(ListCredits, payload)
        return CreditList(
            credits=tuple(await self._store.grants(query.tenant)),
            prepaid=tuple(await self._store.prepaid(query.tenant, act.at.astimezone(UTC).date())),
        )

    async def _adjust(self, payload: bytes, act: Act) -> AdjustmentMade:
        command = parse_command(Adjust, payload)
        async with self._store.transaction() as transaction:
            # Held to the end: the month does not begin to close meanwhile.
            await transaction.accounts.lock_tenant(command.tenant)
            made = await transaction.adjustment(command.tenant, command.reference)
            if made is not None:
                refuse_other_adjustment(made, command)
            else:
                today = act.at.astimezone(UTC).date()
                month = await transaction.open_month(command.tenant, today)
                made = AdjustmentMade(
                    month=f"{month:%Y-%m}", made_at=act.at, **command.model_dump()
                )
                await transaction.add_adjustment(made)
                await transaction.post([adjustment_transfer(made)])
                fact = ChargesAdjusted(tenant=made.tenant, adjustment=made)
                await transaction.accounts.enqueue([tell_fact(fact, act)])
                log().info("charges.adjusted", tenant=made.tenant, reference=made.reference)
        await self._relay.flush()
        return made
