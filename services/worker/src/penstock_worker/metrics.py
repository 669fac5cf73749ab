"""What the worker counts. Labels are models and lanes, never tenants (I8)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_BY_LANE: Final = ("model", "lane")
_BY_MODEL: Final = ("model",)

QUEUED: Final = Gauge("worker_jobs_waiting", "Jobs taken that wait for a slot.", _BY_LANE)
RUNNING: Final = Gauge("worker_jobs_running", "Jobs that generate.", _BY_MODEL)
ENDED: Final = Counter(
    "worker_jobs_ended_total", "Terminal facts written, by status.", (*_BY_LANE, "status")
)
FENCED: Final = Counter(
    "worker_jobs_fenced_total", "Runs whose terminal came second and was dropped.", _BY_MODEL
)
UNWRITTEN: Final = Counter(
    "worker_jobs_past_deadline_total", "Jobs left to the sweeper: their deadline had passed.",
    _BY_MODEL,
)  # fmt: skip
HANDED_BACK: Final = Counter(
    "worker_jobs_handed_back_total", "Jobs given to another worker while draining.", _BY_MODEL
)
BATCH_ITEMS: Final = Histogram(
    "worker_batch_items", "Items per batch.", _BY_MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
PROMPT_TOKENS: Final = Counter("worker_prompt_tokens_total", "Prompt tokens run.", _BY_MODEL)
OUTPUT_TOKENS: Final = Counter("worker_output_tokens_total", "Tokens generated.", _BY_MODEL)
DELTAS: Final = Counter("worker_deltas_total", "Deltas published.", _BY_MODEL)
DELTAS_LOST: Final = Counter(
    "worker_deltas_lost_total", "Deltas that the broker's client refused; the final frame has them."
)
FIRST_TOKEN_MS: Final = Histogram(
    "worker_time_to_first_token_ms",
    "From `routed` to the first token.",
    _BY_LANE,
    buckets=(2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000),
)
QUEUED_MS: Final = Histogram(
    "worker_queued_ms",
    "From `routed` to the start of the batch.",
    _BY_LANE,
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 10000, 60000),
)
