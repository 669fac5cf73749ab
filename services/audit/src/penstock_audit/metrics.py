"""Prometheus metrics of audit."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

TREE_SIZE: Final = Gauge("penstock_audit_tree_size", "Entries under the latest signed checkpoint.")
LAG: Final = Gauge("penstock_audit_lag_events", "Events in EVENTS that no checkpoint covers yet.")
CHECKPOINT_AGE: Final = Gauge(
    "penstock_audit_checkpoint_age_seconds",
    "Since the last checkpoint was signed; grows while nothing happens.",
)
ENTRIES: Final = Counter("penstock_audit_entries_total", "Entries appended by this process.")
CHECKPOINTS: Final = Counter("penstock_audit_checkpoints_total", "Checkpoints signed.")
APPEND_SECONDS: Final = Histogram(
    "penstock_audit_append_seconds",
    "Time to hash, write, sync and sign one batch.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
FAILURES: Final = Counter(
    "penstock_audit_verification_failures_total",
    "Times that log, published checkpoints and EVENTS contradicted each other, by what was found.",
    ["code"],
)
WRITE_ERRORS: Final = Counter(
    "penstock_audit_write_errors_total", "Batches that the disk refused; each is tried again."
)
