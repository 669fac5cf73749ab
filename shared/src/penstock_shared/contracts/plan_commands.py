"""What operators ask billing about plans. Each command is a verb: `v1.platform.billing.<verb>`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock_shared.contracts.ids import ModelName, TenantId
from penstock_shared.contracts.plans import (
    Microusd,
    PlanName,
    PlanTerms,
    PlanVersion,
    Subscription,
    TieredCharge,
)
from penstock_shared.contracts.quotas import Quota
from penstock_shared.contracts.usage import Price


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishPlan(_Command):
    """Verb `publish-plan`: the next version of a plan, or its first.

    What tenants pay does not change by it: they keep the version that was assigned to them.
    """

    plan: PlanName
    terms: PlanTerms


class ListPlans(_Command):
    """Verb `list-plans`: the last version of every plan."""


class ShowPlan(_Command):
    """Verb `show-plan`: the last version when None."""

    plan: PlanName
    version: Annotated[int, Field(ge=1)] | None = None


class PlanOverrides(_Command):
    """A tenant's own terms: what is sent takes the place of the plan's.

    Prices and tiers go model by model, quotas by unit and period.
    """

    title: Annotated[str, StringConstraints(min_length=1, max_length=120)] | None = None
    fee_microusd: Microusd | None = None
    included_microusd: Microusd | None = None
    minimum_microusd: Microusd | None = None
    overage: bool | None = None
    prices: dict[ModelName, Price] = {}
    tiers: tuple[TieredCharge, ...] = ()
    quotas: tuple[Quota, ...] = ()


class AssignPlan(_Command):
    """Verb `assign-plan`: a tenant's plan from the beginning of a UTC day on.

    Assigned again for the same day, the last one holds. What is assigned for later days stays.
    """

    tenant: TenantId
    plan: PlanName
    version: Annotated[int, Field(ge=1)] | None = None
    """None: the last one."""
    from_day: date | None = None
    """None: today."""
    overrides: PlanOverrides = PlanOverrides()


class ListSubscriptions(_Command):
    """Verb `list-subscriptions`: which plan holds from which day on; all tenants' when None."""

    tenant: TenantId | None = None


class PlanList(BaseModel):
    """Answer to `list-plans`."""

    model_config = ConfigDict(frozen=True)

    plans: tuple[PlanVersion, ...]


class SubscriptionList(BaseModel):
    """Answer to `list-subscriptions`, by tenant and day."""

    model_config = ConfigDict(frozen=True)

    subscriptions: tuple[Subscription, ...]
