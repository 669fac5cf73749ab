"""What billing counts. Labels are models and verbs, never tenants."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

EVENTS: Final = Counter(
    "billing_events_total",
    "Request events read, by what came of them: metered, duplicate, reserved, skipped, malformed.",
    ["outcome"],
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
