"""Identifiers, and the one place where text from outside becomes part of a subject.

Request ids are UUIDv7 (RFC 9562 §5.7), or UUIDv5 (§5.5) of tenant and idempotency key, so that
the same key is the same request on every instance and after every flush.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from penstock_shared.contracts.errors import PermanentError

_TOKEN: Final = re.compile(r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")
_CANONICAL_UUID: Final = re.compile(r"^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z")
"""Nearly every id is canonical already, and `uuid.UUID` costs ten times as much as this."""

PLATFORM: Final = "platform"
"""The reserved tenant whose subjects carry the platform's own facts and operator commands."""

_IDEMPOTENCY_NAMESPACE: Final = uuid.UUID("6f0a7a2e-9b1c-5d0e-8a51-70656e73746b")


def subject_token(value: str) -> str:
    """Return `value` if it may stand as one token of a subject.

    Raises:
        PermanentError: it holds a wildcard, a dot, white space, capitals, or is too long.
    """
    if not _TOKEN.match(value):
        msg = (
            f"{value[:80]!r} is no valid name: use 1 to 63 of a-z, 0-9, '-' and '_', "
            "beginning and ending with a letter or digit."
        )
        raise PermanentError(msg, code="invalid_name")
    return value


def _token_field(value: str) -> str:
    if not _TOKEN.match(value):
        msg = "use 1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit"
        raise ValueError(msg)
    return value


def _canonical(value: str) -> str:
    return value if _CANONICAL_UUID.match(value) else str(uuid.UUID(value))


def _request_field(value: str) -> str:
    try:
        return _canonical(value)
    except ValueError as error:
        msg = "a request id is a UUID"
        raise ValueError(msg) from error


Token = Annotated[str, AfterValidator(_token_field)]
TenantId = Token
KeyId = Token
ModelName = Token
RequestId = Annotated[str, AfterValidator(_request_field)]
RunId = RequestId
DataSubject = Annotated[str, StringConstraints(min_length=1, max_length=256)]


def uuid7(unix_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """A UUIDv7 of the given time (Unix milliseconds) and 74 random bits."""
    bits = int.from_bytes(random_bytes(10), "big")
    value = (unix_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | bits & ((1 << 62) - 1)
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def keyed_request_id(tenant: str, idempotency_key: str) -> str:
    """The request id that a tenant's idempotency key always names (UUIDv5)."""
    return str(uuid.uuid5(_IDEMPOTENCY_NAMESPACE, f"{tenant}\x00{idempotency_key}"))


def parse_request_id(value: str) -> str:
    """The canonical form of a request id, with or without the edge's `resp_` prefix.

    Raises:
        PermanentError: it is no UUID.
    """
    try:
        return _canonical(value.removeprefix("resp_"))
    except ValueError as error:
        msg = f"{value[:80]!r} is no request id: expected a UUID."
        raise PermanentError(msg, code="invalid_request_id") from error


def unix_ms_of(request_id: str) -> int | None:
    """When a UUIDv7 was made, in Unix milliseconds; None for keyed ids."""
    parsed = uuid.UUID(request_id)
    return parsed.int >> 80 if parsed.version == 7 else None  # noqa: PLR2004  the version itself
