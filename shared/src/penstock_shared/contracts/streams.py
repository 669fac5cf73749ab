"""The only place that names streams, buckets, consumers, retention and windows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock_shared.contracts import subjects
from penstock_shared.contracts.subjects import Lane

MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0

EVENTS: Final = "EVENTS"
JOBS: Final = "JOBS"
INGRESS: Final = "INGRESS"
RESPONSES: Final = "RESPONSES"
CONTROL: Final = "CONTROL"
DEAD: Final = "DEAD"

_JOB_MAX_AGE_S: Final = HOUR_S + 5 * MINUTE_S
"""Past every deadline and its grace. A removed model's jobs are pulled by nobody: the sweeper ends
their requests, and here they stop counting as lag."""


class Storage(StrEnum):
    """Where a stream keeps its messages."""

    FILE = "file"
    MEMORY = "memory"


class Retention(StrEnum):
    """When a stream lets go of a message: by its limits, or once it is acknowledged."""

    LIMITS = "limits"
    WORK_QUEUE = "workqueue"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream; `max_age_s` 0 and `max_bytes` -1 mean without limit."""

    name: str
    subjects: tuple[str, ...]
    storage: Storage = Storage.FILE
    retention: Retention = Retention.LIMITS
    max_age_s: float = 0.0
    max_bytes: int = -1
    max_messages_per_subject: int = -1
    discard_new: bool = False
    silent: bool = False
    """The server acknowledges no publish. For every subject that tenants may publish on: an
    acknowledgement goes, with the server's rights, to whatever reply subject a publisher names,
    another tenant's included (I8)."""
    dedup_window_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """One durable pull consumer. There is no delivery limit: the holder counts (DESIGN.md)."""

    stream: str
    durable: str
    filter_subjects: tuple[str, ...]
    ack_wait_s: float = 30.0
    max_ack_pending: int = 10_000


STREAMS: Final = (
    StreamSpec(INGRESS, (subjects.EVERY_QUEUE,), retention=Retention.WORK_QUEUE, silent=True),
    StreamSpec(EVENTS, (subjects.EVERY_EVENT,), discard_new=True),
    StreamSpec(
        JOBS, (subjects.EVERY_JOB,), retention=Retention.WORK_QUEUE, max_age_s=_JOB_MAX_AGE_S
    ),
    StreamSpec(
        RESPONSES,
        (subjects.EVERY_RESPONSE,),
        storage=Storage.MEMORY,
        max_age_s=3 * MINUTE_S,
        max_bytes=256 * 1024 * 1024,
    ),
    StreamSpec(
        CONTROL,
        (subjects.EVERY_CONTROL,),
        max_age_s=HOUR_S,
        max_messages_per_subject=1,
        silent=True,
    ),
    StreamSpec(DEAD, (subjects.EVERY_DEAD,)),
)
"""Every stream. SAGAS and TOOLS come with the sagas themselves."""


class Bucket(StrEnum):
    """Key-value buckets that services hold in memory through watches."""

    TENANTS = "tenants"
    KEYS = "keys"
    MODELS = "models"
    PRICES = "prices"  # of tenants whose plan has its own
    ROUTER = "router"  # tenants' policies, and snapshots of what routers have learned
    DATA_KEYS = "datakeys"  # wrapped by the root key; destroying an entry erases what it sealed
    CRASHES = "crashes"  # how many processes died on a job that was delivered again


BUCKET_MAX_AGE_S: Final = {Bucket.CRASHES: 2 * HOUR_S}
"""Buckets that forget; a job lives an hour at most (`MAX_DEADLINE_S`)."""


BILLING_CONSUMER: Final = ConsumerSpec(
    EVENTS, "billing", (subjects.EVERY_REQUEST_EVENT,), ack_wait_s=10.0
)
ARCHIVE_CONSUMER: Final = ConsumerSpec(
    EVENTS,
    "realtime-archive",
    (subjects.EVERY_REQUEST_EVENT, subjects.EVERY_RESPONSE_EVENT),
    ack_wait_s=10.0,
)
"""Of all realtime instances together: what it has acknowledged is kept in Postgres."""
INGRESS_CONSUMER: Final = ConsumerSpec(
    INGRESS, "router", (subjects.EVERY_QUEUE,), max_ack_pending=1_000_000
)
"""What waits for a tenant's rate limit is pending: it must not fill the consumer for the others."""


JOB_ACK_WAIT_S: Final = 10.0
"""How long a dead worker's jobs wait for their next holder; holders report every third of it."""


def job_consumer(model: str, lane: Lane) -> ConsumerSpec:
    """The consumer of one model's lane: the one whose lag scales the workers."""
    return ConsumerSpec(
        stream=JOBS,
        durable=f"{model}-{lane.value}",
        filter_subjects=(subjects.jobs_of(model, lane),),
        ack_wait_s=JOB_ACK_WAIT_S,
    )


DEFAULT_REQUEST_DEADLINE_S: Final = 120.0
SWEEP_GRACE_S: Final = 30.0
"""How long after its deadline a request without a terminal is declared expired."""

REQUEST_ID_MAX_AGE_S: Final = 24 * HOUR_S
"""EVENTS keeps at least this much; a UUIDv7 older than that is refused."""
