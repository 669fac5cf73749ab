"""What realtime measures. No label carries a tenant: their number has no bound."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "penstock_realtime_requests_total",
    "Answered requests, by endpoint; `protocol` is what no endpoint has seen.",
    ["route", "status"],
)
REQUEST_DURATION_S: Final = Histogram(
    "penstock_realtime_request_seconds",
    "From a request's head to the end of its answer, streams included.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
TIME_TO_FIRST_BYTE_S: Final = Histogram(
    "penstock_realtime_time_to_first_byte_seconds",
    "From a request's head to the first byte of its answer's body.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
IN_FLIGHT: Final = Gauge(
    "penstock_realtime_requests_in_flight", "Requests whose answer has not ended.", ["route"]
)
WS_ACTIVE: Final = Gauge("penstock_realtime_ws_active_connections", "Open WebSockets.")
WS_HANDSHAKE_FAILURES: Final = Counter(
    "penstock_realtime_ws_handshake_failures_total", "WebSockets that were refused.", ["code"]
)
WS_CLOSED: Final = Counter(
    "penstock_realtime_ws_closed_total", "WebSockets closed by this side, by close code.", ["code"]
)
WS_SEND_ERRORS: Final = Counter(
    "penstock_realtime_ws_send_errors_total", "Events that a WebSocket's peer was gone for."
)
WS_BACKPRESSURE_DROPS: Final = Counter(
    "penstock_realtime_ws_backpressure_drops_total",
    "Deltas given up because a reader was slow; each is told in a gap event.",
    ["policy"],
)
WS_REREAD: Final = Counter(
    "penstock_realtime_ws_reread_total",
    "Times that a slow reader's text did not fit its buffer and was read again later.",
)
WS_BUFFER_BYTES: Final = Gauge(
    "penstock_realtime_ws_buffer_bytes", "Text that waits for readers, over all sessions."
)
RESUMED: Final = Counter(
    "penstock_realtime_resumed_total", "Responses that a client came back to.", ["how"]
)
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
GAPS_TOLD: Final = Counter(
    "penstock_realtime_gaps_told_total", "Gap events that clients got.", ["reason"]
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
SESSIONS_RESUMED: Final = Counter(
    "penstock_realtime_sessions_resumed_total",
    "Sessions that a socket claimed (`resumed`), lost to another (`taken`), or found `expired`.",
    ["outcome"],
)
SESSION_STORE_FAILURES: Final = Counter(
    "penstock_realtime_session_store_failures_total",
    "Reads and writes of sessions that Redis did not answer.",
)
ORPHANS: Final = Counter(
    "penstock_realtime_orphans_total",
    "Responses without a socket after their grace: `cancelled`, or left running as `unknown`.",
    ["outcome"],
)
INSTANCES_ADOPTED: Final = Counter(
    "penstock_realtime_instances_adopted_total",
    "Dead instances whose sockets' responses this one has looked after.",
)
ARCHIVED: Final = Counter(
    "penstock_realtime_archived_total",
    "Responses written to the store (kept, or deleted by their tenant), and expired ones removed.",
    ["what"],
)
ARCHIVE_RETRIES: Final = Counter(
    "penstock_realtime_archive_retries_total", "Times that the store of responses was not there."
)
