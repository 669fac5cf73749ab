"""What billing counts. Labels are models and verbs, never tenants."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

EVENTS: Final = Counter(
    "billing_events_total",
    "Request events read, by what came of them: metered, duplicate, reserved, skipped, malformed.",
    ["outcome"],
)
LATE: Final = Counter(
    "billing_late_total",
    "Attempts read after their month was cut: adjustments, on the next invoice.",
)
METERED_MICROUSD: Final = Counter(
    "billing_metered_microusd_total", "Money metered, in micro-dollars.", ["model"]
)
METERED_TOKENS: Final = Counter(
    "billing_metered_tokens_total", "Tokens metered.", ["model", "direction"]
)
BATCH_SECONDS: Final = Histogram(
    "billing_batch_seconds",
    "From a batch in hand to its commit.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
LEDGER_RETRIES: Final = Counter(
    "billing_ledger_retries_total", "Batches written again because Postgres did not answer."
)
CONSUMER_LAG: Final = Gauge(
    "billing_consumer_lag", "Request events that are not settled yet, delivered ones included."
)
EVENTS_SEQ: Final = Gauge("billing_events_seq", "The EVENTS sequence up to which all is committed.")
RESERVATIONS: Final = Gauge(
    "billing_reservations", "Attempts that have a reservation in a tenant's quotas."
)
REBUILDING: Final = Gauge(
    "billing_rebuilding", "1 while EVENTS is read again, and nothing can be reserved."
)
ACTS: Final = Counter("billing_account_acts_total", "Operator commands.", ["verb", "outcome"])
OUTBOX_BACKLOG: Final = Gauge("billing_outbox_backlog", "Entries that await publication.")
OUTBOX_PUBLISHED: Final = Counter("billing_outbox_published_total", "Entries published.", ["kind"])
MENDED: Final = Counter(
    "billing_buckets_mended_total",
    "Bucket entries that differed from Postgres, by what was done.",
    ["bucket", "action"],
)
PAYMENTS: Final = Counter(
    "billing_payments_total",
    "Attempts to collect, by what came of them: pending, succeeded, failed, unanswered, refused.",
    ["provider", "outcome"],
)
REFUNDS: Final = Counter(
    "billing_refunds_total",
    "Refunds, by what came of them: pending, succeeded, failed, unanswered, refused.",
    ["provider", "outcome"],
)
STANDING_CHANGES: Final = Counter(
    "billing_standing_changes_total",
    "Tenants whose standing changed, by the new one.",
    ["standing"],
)
PERIODS_CLOSED: Final = Counter(
    "billing_periods_closed_total",
    "Months of tenants, by what came of closing them: invoiced, empty, failed.",
    ["outcome"],
)
PERIODS_CUT: Final = Gauge("billing_periods_cut", "Months that are cut and not closed yet.")
PERIODS_HELD: Final = Gauge(
    "billing_periods_held", "Tenants whose months are over, and wait for what is reserved in them."
)
THRESHOLDS: Final = Counter(
    "billing_thresholds_total",
    "Shares of quotas that were reached, by unit and per cent.",
    ["unit", "percent"],
)
PUSHES: Final = Counter(
    "billing_meter_pushes_total",
    "Pushes to Stripe's meter, by how they went: accepted, duplicate, summed, absent, refused; "
    "unknown and unclear ones go on.",
    ["outcome"],
)
PUSH_BACKLOG: Final = Gauge(
    "billing_meter_push_backlog", "Pushes of which it is not known whether Stripe's meter has them."
)
PUSH_AGE: Final = Gauge(
    "billing_meter_push_age_seconds", "How long ago the oldest usage among these was."
)
METER_ERRORS: Final = Counter(
    "billing_meter_errors_total", "Events that Stripe's meter dropped after it had taken them."
)
STRIPE_METER_DIFFERS: Final = Counter(
    "billing_stripe_meter_differs_cents_total",
    "Cents by which invoices found Stripe's meter to differ from what it had acknowledged.",
)
STRIPE_BEHIND: Final = Gauge(
    "billing_stripe_sync_behind", "Tenants that could not be brought in step at Stripe."
)
WEBHOOKS: Final = Counter(
    "billing_webhooks_total",
    "Deliveries of payment providers: new, duplicate, replayed; listed: found where none came; "
    "else why they were refused.",
    ["provider", "outcome"],
)
NOTICES: Final = Counter(
    "billing_notices_total",
    "Stored notices, by how their handling went: done, again, parked.",
    ["provider", "outcome"],
)
DRIFT: Final = Gauge(
    "billing_drift",
    "Differences between figures that should be one, and that nothing explains, by what was "
    "compared: 0 is expected.",
    ["check"],
)
RECONCILED_AT: Final = Gauge(
    "billing_reconciled_timestamp_seconds",
    "When all figures were last compared (Unix time), whatever came of it.",
)
COMPARED_SEQ: Final = Gauge(
    "billing_reconciled_seq", "The EVENTS sequence up to which facts and rows were compared."
)

# Prometheus sees no increase of a series that is only just there: what alerts ask for is there.
EVENTS.labels("malformed")
PERIODS_CLOSED.labels("failed")
PUSHES.labels("unclear")
for _provider in ("stripe", "braintree"):
    PAYMENTS.labels(_provider, "refused")
    REFUNDS.labels(_provider, "refused")
    NOTICES.labels(_provider, "parked")
