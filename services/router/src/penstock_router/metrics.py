"""What the router counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ADMISSIONS: Final = Counter(
    "router_admissions_total",
    "Admissions by outcome; of what was rejected or buried with the error's code.",
    ["outcome", "reason"],
)
TIER: Final = Counter(
    "router_tier_distribution_total", "Requests routed, by first model and lane.", ["model", "lane"]
)
DECISION_LATENCY: Final = Histogram(
    "router_decision_latency_ms",
    "From the question to the decision, without the broker.",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 50),
)
EXPLORATION: Final = Counter(
    "router_exploration_microusd_total",
    "What exploring was expected to cost in this router's decisions, more than the best known "
    "choice.",
)
IN_FLIGHT: Final = Gauge("router_admissions_in_flight", "Admissions being decided.")
OPEN_REQUESTS: Final = Gauge("router_open_requests", "Routed requests without a terminal.")
EXPIRED: Final = Counter("router_expired_total", "Requests that the sweeper declared expired.")
QUEUE_DEPTH: Final = Gauge(
    "router_queue_depth",
    "Jobs in a model's lanes, held ones included, at the last look.",
    ["model"],
)
JOBS_LAG: Final = Gauge(
    "router_jobs_lag",
    "Jobs of one lane's consumer, held ones included: what workers are scaled by (deploy/keda).",
    ["model", "lane"],
)
DRAIN_RATE: Final = Gauge(
    "router_drain_rate_per_s", "Jobs that leave a model's queue; 0 while not known.", ["model"]
)
SHED: Final = Counter("router_shed_total", "Requests refused for a model's queue.", ["model"])
RATE_LIMIT_FALLBACKS: Final = Counter(
    "router_rate_limit_fallbacks_total",
    "Decisions taken by this replica alone because Redis did not answer.",
)
ESCALATIONS: Final = Counter(
    "router_escalations_total", "Jobs of attempts after the first, by the model to try.", ["model"]
)
LEARNER_BEHIND: Final = Gauge(
    "router_learner_behind", "Facts of the event log that this router has not learned from yet."
)
FACTS_REJECTED: Final = Counter(
    "router_facts_rejected_total", "Facts that nothing was learned from, as they are malformed."
)
SNAPSHOTS_REJECTED: Final = Counter(
    "router_snapshots_rejected_total",
    "Snapshots of learned state that could not be used: it was rebuilt from the event log.",
    ["reason"],
)
EXPERIMENTS_RUNNING: Final = Gauge("router_experiments_running", "Tenants with an experiment.")
EXPERIMENTS_ENDED: Final = Counter(
    "router_experiments_ended_total", "Canaries that this replica ended by their test.", ["how"]
)
MODE: Final = Gauge(
    "router_mode", "1 for the mode that this router works in, 0 for the others.", ["mode"]
)
BREAKER: Final = Gauge(
    "router_breaker",
    "1 for the state of a model's circuit breaker for all tenants, 0 for the others.",
    ["model", "state"],
)
RESERVATIONS: Final = Counter(
    "router_reservations_total",
    "Requests of tenants with quotas: granted, refused, or unavailable.",
    ["outcome"],
)
RESERVATION_BATCH: Final = Histogram(
    "router_reservation_batch",
    "Requests that one statement reserved for.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
ORPHANS: Final = Counter(
    "router_orphans_total", "Requests that had a reservation and were never routed, ended."
)
# Of what one router has read of the event log since it started, every replica's requests: take the
# value of one instance, not the sum over them.
MISROUTE_RATE: Final = Gauge(
    "router_misroute_rate",
    "Of the judged answers to 'auto', about the last 2,000: how many were wrong where another "
    "model's would have been right, by the decisions' own estimate of that other model. Answers "
    "that nobody judged are not in it, nor those for which a cheaper model would have done.",
)
CALIBRATION_ERROR: Final = Gauge(
    "router_calibration_error",
    "Expected calibration error of the decisions' P(correct) over about the last 2,000 judged "
    "answers, 15 bins of equal width.",
)
COST: Final = Gauge(
    "router_expected_vs_actual_cost_microusd",
    "Of the requests that have ended: what their decisions expected, and what their attempts cost.",
    ["kind"],
)
COST_RATIO: Final = Gauge("router_expected_vs_actual_cost_ratio", "Actual over expected cost.")
CLASSIFIER_MISSING: Final = Gauge(
    "router_classifier_missing", "1: the classifier's file cannot be read, the plain rule decides."
)
