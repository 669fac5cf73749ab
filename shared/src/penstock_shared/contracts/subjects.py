"""The only place that builds or parses a subject: `v1.<tenant>.<topic>…`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock_shared.contracts.ids import PLATFORM, parse_request_id, subject_token

VERSION: Final = "v1"


class Lane(StrEnum):
    """How urgent a job is; each lane of each model is its own consumer."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"
    OVER_SHARE = "over-share"
    """Where the router sends what a tenant has in flight beyond its share: run when the others
    are empty, and a little at a time otherwise."""


def _subject(tenant: str, *tokens: str) -> str:
    return ".".join((VERSION, subject_token(tenant), *tokens))


def submit(tenant: str) -> str:
    """Request/reply to the routers, for tenants."""
    return _subject(tenant, "requests", "submit")


def admitted(tenant: str) -> str:
    """Request/reply to the routers, for realtime, which has limited and encrypted already."""
    return _subject(tenant, "requests", "admitted")


def request_get(tenant: str) -> str:
    """Request/reply to realtime: state and answer of a request by id."""
    return _subject(tenant, "requests", "get")


def request_feedback(tenant: str) -> str:
    """Request/reply to realtime: how good the answer to a request was."""
    return _subject(tenant, "requests", "feedback")


def queue(tenant: str) -> str:
    """The durable front door for tenants that fire and forget."""
    return _subject(tenant, "requests", "queue")


def request_event(tenant: str, request_id: str) -> str:
    """Every fact of one request: the subject that expected-last-sequence guards."""
    return _subject(tenant, "events", "request", parse_request_id(request_id))


def response_event(tenant: str, request_id: str) -> str:
    """What becomes of a kept response after its request: its deletion."""
    return _subject(tenant, "events", "response", parse_request_id(request_id))


def feedback_event(tenant: str, request_id: str) -> str:
    """What a client says of one answer."""
    return _subject(tenant, "events", "feedback", parse_request_id(request_id))


def facts_about(request_id: str) -> str:
    """Every fact about one request, its response and its feedback, whosever it is."""
    return f"{VERSION}.*.events.*.{parse_request_id(request_id)}"


def topic_event(tenant: str, topic: str, fact: str) -> str:
    """A fact that belongs to no request, such as `account.key-created`."""
    return _subject(tenant, "events", subject_token(topic), subject_token(fact))


def job(tenant: str, model: str, lane: Lane) -> str:
    """One job for one model's lane."""
    return _subject(tenant, "jobs", subject_token(model), lane.value)


def jobs_of(model: str, lane: Lane) -> str:
    """The filter of the consumer that one model's lane has."""
    return f"{VERSION}.*.jobs.{subject_token(model)}.{lane.value}"


def responses(tenant: str, request_id: str) -> str:
    """Deltas and the final frame of one request."""
    return _subject(tenant, "responses", parse_request_id(request_id))


def control(tenant: str, request_id: str) -> str:
    """Commands about one request: cancellation."""
    return _subject(tenant, "control", parse_request_id(request_id))


def dead(tenant: str, stream: str) -> str:
    """Where poison from `stream` (lower case) lies."""
    return _subject(tenant, "dead", subject_token(stream))


def dead_of(tenant: str) -> str:
    """All of one tenant's poison."""
    return _subject(tenant, "dead", "*")


def accounts(verb: str) -> str:
    """Operator commands to billing: `create-tenant`, `create-key`, …."""
    return _subject(PLATFORM, "accounts", subject_token(verb))


def billing(verb: str) -> str:
    """Commands and questions to billing about money and use: `set-plan`, `preview-invoice`, …."""
    return _subject(PLATFORM, "billing", subject_token(verb))


def usage_query() -> str:
    """Operator's usage query to billing."""
    return _subject(PLATFORM, "usage", "query")


def router_command(verb: str) -> str:
    """Operator commands to the routers: `show-policy`, `set-policy`, …."""
    return _subject(PLATFORM, "router", subject_token(verb))


def models_state() -> str:
    """Operator's question to every worker: what have you loaded, and how does it do?"""
    return _subject(PLATFORM, "models", "state")


def session_taken() -> str:
    """Told by the realtime instance whose socket has claimed a session to the one that held it."""
    return _subject(PLATFORM, "sessions", "taken")


def instance_alive(instance: str) -> str:
    """Asked by a realtime instance of another whose heartbeat is late: do you live?"""
    return _subject(PLATFORM, "sessions", "alive", subject_token(instance))


def audit_checkpoint() -> str:
    """Operator's question to audit: the latest signed checkpoint."""
    return _subject(PLATFORM, "audit", "checkpoint")


EVERY_SUBMIT: Final = f"{VERSION}.*.requests.submit"
EVERY_ADMITTED: Final = f"{VERSION}.*.requests.admitted"
EVERY_REQUEST_GET: Final = f"{VERSION}.*.requests.get"
EVERY_REQUEST_FEEDBACK: Final = f"{VERSION}.*.requests.feedback"
EVERY_QUEUE: Final = f"{VERSION}.*.requests.queue"
EVERY_EVENT: Final = f"{VERSION}.*.events.>"
EVERY_POLICY_EVENT: Final = f"{VERSION}.*.events.router.policy"
EVERY_REQUEST_EVENT: Final = f"{VERSION}.*.events.request.*"
EVERY_RESPONSE_EVENT: Final = f"{VERSION}.*.events.response.*"
EVERY_JOB: Final = f"{VERSION}.*.jobs.>"
EVERY_RESPONSE: Final = f"{VERSION}.*.responses.*"
EVERY_CONTROL: Final = f"{VERSION}.*.control.*"
EVERY_DEAD: Final = f"{VERSION}.*.dead.*"
EVERY_ROUTER_COMMAND: Final = f"{VERSION}.{PLATFORM}.router.*"
EVERY_BILLING: Final = f"{VERSION}.{PLATFORM}.billing.*"
EVERY_ACCOUNTS: Final = f"{VERSION}.{PLATFORM}.accounts.*"


@dataclass(frozen=True, slots=True)
class ParsedSubject:
    """A subject taken apart: `v1.<tenant>.<topic>.<rest…>`."""

    tenant: str
    topic: str
    rest: tuple[str, ...]


def parse(subject: str) -> ParsedSubject:
    """Take one of our subjects apart.

    Raises:
        PermanentError: it is none of ours, or its tenant is no valid name.
    """
    version, _, rest = subject.partition(".")
    tokens = rest.split(".")
    if version != VERSION or len(tokens) < 2:  # noqa: PLR2004  tenant and topic
        subject_token(subject)
    return ParsedSubject(tenant=subject_token(tokens[0]), topic=tokens[1], rest=tuple(tokens[2:]))


@dataclass(frozen=True, slots=True)
class TenantPermissions:
    """What a tenant's own NATS credentials cover, and nothing else (I8)."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


_SERVICE_INBOX: Final = "_INBOX"


def inbox_prefix(tenant: str) -> str:
    """The reply inbox that a tenant has for itself (one token, no wildcards)."""
    return f"{_SERVICE_INBOX}_{subject_token(tenant)}"


def may_reply_to(tenant: str, reply: str) -> bool:
    """Whether an answer for `tenant` may go to `reply`.

    The server does not check the reply subject that a client names, and the answer is published
    with the service's rights: without this, a tenant could have it delivered anywhere (I8).
    Services' own inboxes have names that cannot be guessed.
    """
    return reply.partition(".")[0] in {_SERVICE_INBOX, inbox_prefix(tenant)}


def tenant_permissions(tenant: str, *, may_write: bool = True) -> TenantPermissions:
    """Subjects that a tenant's caller may publish and subscribe over NATS.

    Whoever may only read can ask for a request's state and hear its answer.
    """
    writing = (
        submit(tenant),
        queue(tenant),
        request_feedback(tenant),
        _subject(tenant, "control", "*"),
    )
    return TenantPermissions(
        publish=(*(writing if may_write else ()), request_get(tenant)),
        subscribe=(_subject(tenant, "responses", "*"), f"{inbox_prefix(tenant)}.>"),
    )
