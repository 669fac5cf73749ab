"""What the worker counts. Labels are models and lanes, never tenants (I8)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_BY_LANE: Final = ("model", "lane")
_BY_MODEL: Final = ("model",)
_WAITS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000)

QUEUED: Final = Gauge("worker_jobs_waiting", "Jobs taken that wait for a slot.", _BY_LANE)
OLDEST_S: Final = Gauge(
    "worker_oldest_job_age_seconds", "Since `routed`, of those that wait.", _BY_LANE
)
ESTIMATED_WAIT_S: Final = Gauge(
    "worker_estimated_wait_seconds", "For a job that comes now, by tokens ahead and speed.",
    _BY_LANE,
)  # fmt: skip
RUNNING: Final = Gauge("worker_jobs_running", "Jobs that generate.", _BY_MODEL)
ENDED: Final = Counter(
    "worker_jobs_ended_total", "Terminal facts written, by status.", (*_BY_LANE, "status")
)
ATTEMPTS_FAILED: Final = Counter(
    "worker_attempts_failed_total", "Answers that failed their check.", (*_BY_MODEL, "reason")
)
CANCELLED: Final = Counter(
    "worker_cancellations_total", "Jobs that were cancelled, by where they were.",
    (*_BY_MODEL, "stage"),
)  # fmt: skip
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
ITEMS_MOVED: Final = Counter(
    "worker_items_moved_total", "Last items of a batch that went on in another one.", _BY_MODEL
)
OUT_OF_MEMORY: Final = Counter(
    "worker_out_of_memory_total", "Batches that did not fit into memory.", _BY_MODEL
)
PROMPT_TOKENS: Final = Counter("worker_prompt_tokens_total", "Prompt tokens run.", _BY_MODEL)
OUTPUT_TOKENS: Final = Counter("worker_output_tokens_total", "Tokens generated.", _BY_LANE)
DELTAS: Final = Counter("worker_deltas_total", "Deltas published.", _BY_MODEL)
DELTAS_LOST: Final = Counter(
    "worker_deltas_lost_total", "Deltas that the broker's client refused; the final frame has them."
)
FIRST_TOKEN_MS: Final = Histogram(
    "worker_time_to_first_token_ms",
    "From `routed` to the first token.",
    _BY_LANE,
    buckets=_WAITS_MS,
)
INTER_TOKEN_MS: Final = Histogram(
    "worker_inter_token_latency_ms",
    "Per request: from its first token to its last, by the tokens in between.",
    _BY_LANE,
    buckets=(0.5, 1, 2, 5, 10, 20, 50, 100, 250, 1000),
)
QUEUED_MS: Final = Histogram(
    "worker_queued_ms", "From `routed` to the start of the batch.", _BY_LANE, buckets=_WAITS_MS
)
MODEL_MEMORY: Final = Gauge(
    "worker_model_memory_bytes", "What a loaded model is taken to need.", _BY_MODEL
)
MODEL_STATE: Final = Gauge(
    "worker_model_state", "1 for the state that a model is in.", (*_BY_MODEL, "state")
)
MODEL_LOADS: Final = Counter("worker_model_loads_total", "Versions loaded.", _BY_MODEL)
