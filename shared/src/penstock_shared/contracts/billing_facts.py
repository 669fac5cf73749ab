"""What happened to a tenant's money: `v1.<tenant>.events.billing.<fact>`."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from penstock_shared.contracts.credits import AdjustmentMade, CreditGrant
from penstock_shared.contracts.invoices import Month
from penstock_shared.contracts.payments import ProviderName, Standing
from penstock_shared.contracts.plans import PlanVersion, Subscription
from penstock_shared.contracts.quotas import Quota
from penstock_shared.contracts.tenant_facts import TenantFact


class BillingFact(TenantFact):
    """What all of them have."""

    TOPIC = "billing"


class InvoiceIssued(BillingFact):
    """Fact `billing.invoice-issued`: a month was closed, and this is what it comes to."""

    TYPE = "penstock.billing.invoice_issued.v1"
    FACT = "invoice-issued"

    month: Month
    number: str
    subtotal_microusd: int
    credit_microusd: int
    due_microusd: int
    events_seq: int
    """All of the event log up to here is in it."""
    issued_at: datetime


class PaymentSucceeded(BillingFact):
    """Fact `billing.payment-succeeded`: an invoice, or a part of it, was paid."""

    TYPE = "penstock.billing.payment_succeeded.v1"
    FACT = "payment-succeeded"

    month: Month
    payment_id: UUID
    provider: ProviderName
    cents: int
    owed_cents: int
    """What of the invoice is left to be collected."""
    succeeded_at: datetime


class PaymentFailed(BillingFact):
    """Fact `billing.payment-failed`: an attempt to collect an invoice moved no money."""

    TYPE = "penstock.billing.payment_failed.v1"
    FACT = "payment-failed"

    month: Month
    payment_id: UUID
    provider: ProviderName
    attempt: int
    cents: int
    failure: str | None = None
    """The provider's code, such as `card_declined`."""
    next_try_at: datetime | None = None
    """None: not before the tenant has another payment method, or an operator asks."""
    failed_at: datetime


class PaymentRefunded(BillingFact):
    """Fact `billing.payment-refunded`: money of a payment was given back."""

    TYPE = "penstock.billing.payment_refunded.v1"
    FACT = "payment-refunded"

    month: Month
    payment_id: UUID
    refund_id: UUID
    provider: ProviderName
    cents: int
    refunded_at: datetime


class StandingChanged(BillingFact):
    """Fact `billing.standing-changed`: past due, in grace, suspended, restored."""

    TYPE = "penstock.billing.standing_changed.v1"
    FACT = "standing-changed"

    before: Standing
    standing: Standing
    failing_since: datetime | None = None
    suspends_at: datetime | None = None
    """When the tenant is suspended unless it pays."""
    changed_at: datetime


class PlanPublished(BillingFact):
    """Fact `billing.plan-published`, of the platform: nobody pays by it until it is assigned."""

    TYPE = "penstock.billing.plan_published.v1"
    FACT = "plan-published"

    version: PlanVersion


class PlanAssigned(BillingFact):
    """Fact `billing.plan-assigned`: what the tenant pays from a day on."""

    TYPE = "penstock.billing.plan_assigned.v1"
    FACT = "plan-assigned"

    subscription: Subscription
    assigned_at: datetime


class CreditGranted(BillingFact):
    """Fact `billing.credit-granted`: the tenant has credit to use."""

    TYPE = "penstock.billing.credit_granted.v1"
    FACT = "credit-granted"

    grant: CreditGrant


class ChargesAdjusted(BillingFact):
    """Fact `billing.charges-adjusted`: an operator corrected what the tenant owes."""

    TYPE = "penstock.billing.charges_adjusted.v1"
    FACT = "charges-adjusted"

    adjustment: AdjustmentMade


class QuotaReached(BillingFact):
    """Fact `billing.quota-reached`: so many per cent of a quota are used in its period."""

    TYPE = "penstock.billing.quota_reached.v1"
    FACT = "quota-reached"

    quota: Quota
    percent: int
    settled: int
    begins_on: date
    resets_at: datetime
    reached_at: datetime
