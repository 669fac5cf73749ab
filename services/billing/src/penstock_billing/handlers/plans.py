"""Commands about plans: published, assigned, looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, timedelta
from typing import Final

from pydantic import ValidationError

from penstock_billing.domain.announcements import (
    Act,
    tell_fact,
    tell_prices,
    tell_tenant_updated,
)
from penstock_billing.domain.plans import (
    limited_from,
    models_named,
    overridden,
    tenant_prices,
)
from penstock_billing.handlers.accounts import Relay
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.ports.plans import KnownModels, PlanStore, PlanTransaction
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.billing_facts import PlanAssigned, PlanPublished
from penstock_shared.contracts.errors import ConflictError, NotFoundError, SchemaError
from penstock_shared.contracts.ids import PLATFORM
from penstock_shared.contracts.plan_commands import (
    AssignPlan,
    ListPlans,
    ListSubscriptions,
    PlanList,
    PlanOverrides,
    PublishPlan,
    ShowPlan,
    SubscriptionList,
)
from penstock_shared.contracts.plans import DEFAULT_PLAN, PlanTerms, PlanVersion, Subscription
from penstock_shared.runtime.telemetry import log

_MAX_AHEAD: Final = timedelta(days=366)
_MAX_CHANGES: Final = 6
"""To come, of one tenant: every router holds their prices in memory."""


class PlanCommands:
    """Answers commands. An answer is sent after its effect is published."""

    def __init__(self, store: PlanStore, models: KnownModels, relay: Relay) -> None:
        self._store = store
        self._models = models
        self._relay = relay
        self.verbs: dict[str, Verb] = {
            "publish-plan": self._publish,
            "list-plans": self._list,
            "show-plan": self._show,
            "assign-plan": self._assign,
            "list-subscriptions": self._list_subscriptions,
        }

    async def _publish(self, payload: bytes, act: Act) -> PlanVersion:
        command = parse_command(PublishPlan, payload)
        if command.plan == DEFAULT_PLAN:
            msg = f"'{DEFAULT_PLAN}' is for who has no plan, and stays as it is: name another."
            raise ConflictError(msg, code="reserved_name", param="plan")
        await self._refuse_unknown_models(command.terms, "terms")
        async with self._store.transaction() as transaction:
            last = await transaction.last_version(command.plan)
            if last is None or last.terms != command.terms:
                number = 1 if last is None else last.version + 1
                last = PlanVersion(
                    plan=command.plan, version=number, terms=command.terms, published_at=act.at
                )
                await transaction.add_version(last)
                fact = PlanPublished(tenant=PLATFORM, version=last)
                await transaction.accounts.enqueue([tell_fact(fact, act)])
                log().info("plan.published", plan=last.plan, version=last.version)
        await self._relay.flush()
        return last

    async def _assign(self, payload: bytes, act: Act) -> Subscription:
        command = parse_command(AssignPlan, payload)
        today = act.at.astimezone(UTC).date()
        from_day = command.from_day or today
        _refuse_day(from_day, today)
        await self._refuse_unknown_models(command.overrides, "overrides")
        async with self._store.transaction() as transaction:
            # Held to the end: a month does not begin to close meanwhile.
            record = await transaction.accounts.lock_tenant(command.tenant)
            await _refuse_closed(transaction, command.tenant, from_day)
            wanted = await _subscription(transaction, command, from_day)
            timeline = await transaction.timeline(command.tenant)
            if wanted not in timeline:
                timeline = [*(one for one in timeline if one.from_day != from_day), wanted]
                _refuse_many(timeline, today)
                await transaction.put_subscription(wanted, act.at)
                await _announce(transaction, record, timeline, act)
                fact = PlanAssigned(tenant=record.tenant, subscription=wanted, assigned_at=act.at)
                await transaction.accounts.enqueue([tell_fact(fact, act)])
                log().info("plan.assigned", tenant=record.tenant, plan=wanted.plan)
        await self._relay.flush()
        return wanted

    async def _list(self, payload: bytes, _: Act) -> PlanList:
        parse_command(ListPlans, payload)
        return PlanList(plans=tuple(await self._store.plans()))

    async def _show(self, payload: bytes, _: Act) -> PlanVersion:
        query = parse_command(ShowPlan, payload)
        return await self._store.plan(query.plan, query.version)

    async def _list_subscriptions(self, payload: bytes, _: Act) -> SubscriptionList:
        query = parse_command(ListSubscriptions, payload)
        found = await self._store.subscriptions(query.tenant)
        return SubscriptionList(subscriptions=tuple(found))

    async def _refuse_unknown_models(self, terms: PlanTerms | PlanOverrides, param: str) -> None:
        """A price for a model that nobody can name is a slip of the pen, which costs money."""
        unknown = sorted(models_named(terms) - set(await self._models.names()))
        if unknown:
            msg = f"There is no model '{unknown[0]}': 'penstock models list' shows what there is."
            raise NotFoundError(msg, code="model_not_found", param=param)


async def _subscription(
    transaction: PlanTransaction, command: AssignPlan, from_day: date
) -> Subscription:
    version = await transaction.version(command.plan, command.version)
    try:
        terms = overridden(version.terms, command.overrides)
    except ValidationError as error:
        msg = f"With these overrides the plan makes no sense: {error.errors()[0]['msg']}."
        raise SchemaError(msg, param="overrides") from error
    return Subscription(
        tenant=command.tenant,
        from_day=from_day,
        plan=version.plan,
        version=version.version,
        terms=terms,
    )


async def _announce(
    transaction: PlanTransaction, record: TenantRecord, timeline: Sequence[Subscription], act: Act
) -> None:
    """Routers learn prices and limits before the fact is told, each from its day on."""
    today = act.at.astimezone(UTC).date()
    prices = tenant_prices(record.tenant, timeline, today)
    await transaction.put_prices(prices)
    await transaction.accounts.enqueue([tell_prices(prices, act)])
    since = limited_from(timeline, today)
    if since is not None:
        await transaction.accounts.recount_quotas(record.tenant, act.at)
    if since != record.limited_from:
        after = record.model_copy(update={"limited_from": since})
        await transaction.accounts.change_tenant(after)
        await transaction.accounts.enqueue(tell_tenant_updated(after, ("limited_from",), act))


def _refuse_day(from_day: date, today: date) -> None:
    if not today <= from_day <= today + _MAX_AHEAD:
        msg = f"A plan begins on {today} (UTC) or within a year: what was used before is priced."
        raise ConflictError(msg, code="day_out_of_range", param="from_day")


async def _refuse_closed(transaction: PlanTransaction, tenant: str, from_day: date) -> None:
    closed = await transaction.closed_month(tenant, from_day)
    if closed is not None:
        msg = f"The month {closed:%Y-%m} is closed: let the plan begin in one after it."
        raise ConflictError(msg, code="period_closed", param="from_day")


def _refuse_many(timeline: Sequence[Subscription], today: date) -> None:
    if sum(one.from_day > today for one in timeline) > _MAX_CHANGES:
        msg = f"{_MAX_CHANGES} changes are to come already: wait until one has."
        raise ConflictError(msg, code="too_many_changes", param="from_day")
