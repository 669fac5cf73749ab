"""Responses that are kept beyond the event log's own time, until they expire or are deleted."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.ids import KeyId, RequestId, TenantId

_STORE: Final = b'"store":true'


def is_stored(payload: bytes) -> bool:
    """Whether a `RequestRouted` or a `RequestEnded`, as its emitter wrote it, has `store`.

    A search instead of parsing, for those who pass over most facts. No text inside the JSON can
    look like it: a quotation mark within a string has a backslash before it.
    """
    return _STORE in payload


class ResponseDeleted(BaseModel):
    """A tenant deleted a response: whatever is known of it, nobody retrieves it any more (I8).

    It stands on a subject of its own, since the request may still be running: on the request's it
    would fence the terminal.
    """

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.response.deleted.v1"

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    deleted_at: datetime


def deleted_id(request_id: str) -> str:
    """The deterministic event id of `ResponseDeleted`."""
    return f"{request_id}/deleted"
