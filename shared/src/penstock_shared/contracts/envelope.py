"""CloudEvents 1.0 in NATS binary mode: attributes in `ce-*` headers, data in the payload.

Source: cloudevents.io, "NATS Protocol Binding for CloudEvents" 1.0.2, §3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, StringConstraints, ValidationError

from penstock_shared.contracts.errors import PermanentError

CONTENT_TYPE: Final = "application/json"
TRACEPARENT: Final = "traceparent"
_Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class _Attributes(BaseModel):
    """What arrives must be of this shape; what we send is built from values that are."""

    id: _Text
    source: _Text
    type: _Text
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of one event. `id` is deterministic: the same fact has the same id."""

    id: str
    source: str
    type: str
    time: datetime | None = None
    subject: str | None = None
    traceparent: str | None = None

    def headers(self) -> dict[str, str]:
        """The NATS headers of binary mode."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-source": self.source,
            "ce-type": self.type,
            "content-type": CONTENT_TYPE,
        }
        if self.time is not None:
            headers["ce-time"] = self.time.isoformat()
        if self.subject is not None:
            headers["ce-subject"] = self.subject
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent
        return headers

    @classmethod
    def from_headers(cls, headers: Mapping[str, str] | None) -> Self:
        """Read binary-mode headers, whatever their case.

        Raises:
            PermanentError: they are not those of a CloudEvent 1.0.
        """
        folded = {name.lower(): value for name, value in (headers or {}).items()}
        if folded.get("ce-specversion") != "1.0":
            msg = "Not a CloudEvent: the header 'ce-specversion: 1.0' is missing."
            raise PermanentError(msg, code="not_a_cloudevent", param="ce-specversion")
        given = {name: folded.get(f"ce-{name}") for name in _Attributes.model_fields}
        try:
            checked = _Attributes.model_validate(given)
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            msg = f"Not a CloudEvent: the header 'ce-{field}' is missing or malformed."
            raise PermanentError(msg, code="not_a_cloudevent", param=f"ce-{field}") from error
        return cls(
            id=checked.id,
            source=checked.source,
            type=checked.type,
            time=checked.time,
            subject=folded.get("ce-subject"),
            traceparent=folded.get(TRACEPARENT),
        )
