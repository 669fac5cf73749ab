"""What realtime measures. No label carries a tenant: their number has no bound."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "penstock_realtime_requests_total", "Answered requests.", ["route", "status"]
)
SOCKETS: Final = Gauge("penstock_realtime_websockets", "Open WebSockets.")
RUNNING: Final = Gauge("penstock_realtime_responses_running", "Responses that are being followed.")
FIRST_BYTE_S: Final = Histogram(
    "penstock_realtime_first_delta_seconds",
    "From a request's arrival to its first text on the wire.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
RATE_LIMIT_FALLBACKS: Final = Counter(
    "penstock_realtime_rate_limit_fallbacks_total",
    "Decisions taken by this instance alone because Redis did not answer.",
)
GAPS: Final = Counter(
    "penstock_realtime_gaps_total",
    "Deltas that were missed on the wire and filled or refused.",
    ["outcome"],
)
LOG_LOOKUPS: Final = Counter(
    "penstock_realtime_terminal_lookups_total",
    "Times that silence made the edge ask the event log for a terminal.",
)
NATS_LOGINS: Final = Counter(
    "penstock_realtime_nats_logins_total", "Decisions of the auth callout.", ["outcome"]
)
KICKED: Final = Counter(
    "penstock_realtime_disconnected_total", "Connections cut because a key was revoked.", ["kind"]
)
