"""The AsyncAPI 3 document: the WebSocket, and the NATS subjects that a tenant may use.

Source: AsyncAPI Specification 3.0.0. Actions are the service's own, as that asks: it `receive`s
what clients send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel

from penstock_realtime.http.documents.events import (
    RESPONSE_EVENTS,
    SESSION_EVENTS,
    SocketError,
)
from penstock_realtime.http.documents.operations import RESPONSE
from penstock_realtime.http.documents.schemas import Schema, Schemas
from penstock_realtime.http.socket_events import CLIENT_EVENTS, CreateResponse
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.contracts.feedback import FeedbackGiven, GiveFeedback
from penstock_shared.contracts.requests import AdmissionReply
from penstock_shared.contracts.responses import (
    Cancel,
    DeltaFrame,
    FinalFrame,
    RequestGet,
    RequestState,
)
from penstock_shared.contracts.submissions import Submission

_SAMPLE_ID: Final = "00000000-0000-7000-8000-000000000000"
_TEXT: Final = {"type": "string"}
_CLOUD_EVENT: Final = {
    "type": "object",
    "required": ["ce-specversion", "ce-id", "ce-source", "ce-type"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 512,
            "description": "The request id (UUIDv7), or any other text as an idempotency key.",
        },
        "ce-source": {"type": "string", "minLength": 1, "maxLength": 512},
        "ce-type": {"type": "string", "minLength": 1, "maxLength": 512},
        "traceparent": {**_TEXT, "description": "W3C Trace Context."},
    },
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject that a tenant's own credentials cover."""

    name: str
    address: str
    does: str
    """`receive`: the tenant publishes. `send`: it subscribes."""
    messages: tuple[type[BaseModel], ...]
    summary: str
    replies: tuple[type[BaseModel], ...] = ()
    headers: Mapping[str, Any] | None = None


def _address(subject: str) -> str:
    return subject.replace(".tenant.", ".{tenant}.").replace(_SAMPLE_ID, "{request_id}")


SUBJECTS: Final = (
    Subject(
        "submit",
        _address(subjects.submit("tenant")),
        "receive",
        (Submission,),
        "Submit a request; the reply comes once it is durable.",
        (AdmissionReply,),
        _CLOUD_EVENT,
    ),
    Subject(
        "queue",
        _address(subjects.queue("tenant")),
        "receive",
        (Submission,),
        "Leave a request without waiting: a durable work queue.",
        headers=_CLOUD_EVENT,
    ),
    Subject(
        "get",
        _address(subjects.request_get("tenant")),
        "receive",
        (RequestGet,),
        "Ask how a request stands, and for the deltas after a number.",
        (RequestState, ErrorReply),
    ),
    Subject(
        "feedback",
        _address(subjects.request_feedback("tenant")),
        "receive",
        (GiveFeedback,),
        "Say how good the answer to a request was, once.",
        (FeedbackGiven, ErrorReply),
    ),
    Subject(
        "control",
        _address(subjects.control("tenant", _SAMPLE_ID)),
        "receive",
        (Cancel,),
        "Cancel a request.",
    ),
    Subject(
        "responses",
        _address(subjects.responses("tenant", _SAMPLE_ID)),
        "send",
        (DeltaFrame, FinalFrame),
        "The deltas of a request while it runs, and one final frame.",
    ),
)


def asyncapi() -> dict[str, Any]:
    """The document."""
    events, frames = Schemas(), Schemas("nats.")
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {"websocket": _websocket(events, messages)}
    operations: dict[str, Any] = {
        "clientEvents": _on("receive", "websocket", _client_names()),
        "serverEvents": _on("send", "websocket", _server_names()),
    }
    for subject in SUBJECTS:
        names = [_message(messages, frames, model, subject) for model in subject.messages]
        replies = [_message(messages, frames, model) for model in subject.replies]
        channels[subject.name] = _channel(subject.address, ["nats"], names)
        operation = _on(subject.does, subject.name, names, subject.summary)
        if replies:
            inbox = f"{subject.name}Reply"
            channels[inbox] = _channel(None, ["nats"], replies)
            operation["reply"] = {
                "address": {
                    "location": "$message.header#/reply",
                    "description": "Below the tenant's own inbox, `_INBOX_<tenant>.`",
                },
                "channel": {"$ref": f"#/channels/{inbox}"},
                "messages": [{"$ref": f"#/channels/{inbox}/messages/{name}"} for name in replies],
            }
        operations[subject.name] = operation
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock",
            "version": version("penstock-realtime"),
            "description": "Responses over WebSocket, and requests over NATS.",
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": dict(sorted({**events.named, **frames.named}.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "token": {
                    "type": "userPassword",
                    "description": "The API key as the connection's token or password.",
                },
            },
        },
    }


def _servers() -> dict[str, Any]:
    variables = {"host": {"description": "Where the edge, or the broker, is reached."}}
    return {
        "websocket": {
            "host": "{host}",
            "protocol": "ws",
            "variables": variables,
            "security": [{"$ref": "#/components/securitySchemes/bearer"}],
        },
        "nats": {
            "host": "{host}",
            "protocol": "nats",
            "variables": variables,
            "security": [{"$ref": "#/components/securitySchemes/token"}],
        },
    }


def _websocket(schemas: Schemas, messages: dict[str, Any]) -> dict[str, Any]:
    for kind, model in CLIENT_EVENTS.items():
        messages[kind] = {"payload": _client_event(schemas, kind, model)}
    for event in (*RESPONSE_EVENTS, *SESSION_EVENTS, SocketError):
        messages[event.__name__] = {"payload": schemas.ref(event, "serialization")}
    return _channel("/v1/responses", ["websocket"], (*_client_names(), *_server_names()))


def _client_event(schemas: Schemas, kind: str, model: type[BaseModel]) -> Schema:
    schema = schemas.of(model)
    properties = {"type": {"const": kind}, **schema["properties"]}
    if model is CreateResponse:
        body = schemas.body(RESPONSE)
        parameters = schemas.named[body["$ref"].rpartition("/")[2]]
        properties |= parameters["properties"]
        schema["required"] = parameters["required"]
    return {
        "type": "object",
        "properties": properties,
        "required": ["type", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _client_names() -> list[str]:
    return list(CLIENT_EVENTS)


def _server_names() -> list[str]:
    return [event.__name__ for event in (*RESPONSE_EVENTS, *SESSION_EVENTS, SocketError)]


def _message(
    messages: dict[str, Any],
    schemas: Schemas,
    model: type[BaseModel],
    subject: Subject | None = None,
) -> str:
    told: dict[str, Any] = {"payload": schemas.ref(model)}
    if subject is not None and subject.headers is not None:
        told["headers"] = subject.headers
    messages[model.__name__] = told
    return model.__name__


def _channel(address: str | None, servers: Iterable[str], names: Iterable[str]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "servers": [{"$ref": f"#/servers/{server}"} for server in servers],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }
    parameters = [name for name in ("tenant", "request_id") if f"{{{name}}}" in (address or "")]
    if parameters:
        channel["parameters"] = {name: {} for name in parameters}
    return channel


def _on(does: str, channel: str, names: Iterable[str], summary: str | None = None) -> Schema:
    return {
        "action": does,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        **({} if summary is None else {"summary": summary}),
    }
