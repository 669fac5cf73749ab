"""How an event becomes a leaf, and how its bytes are kept.

The *entry* that the tree commits to is a small JSON object with the digests of headers and data;
entries in tlog-tiles are at most 65,535 bytes, events are not. The *record* beside it holds the
event itself, from which anyone can make the entry again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

_RECORD: Final = struct.Struct(">IQQHI")
"""Length of what follows these four bytes, sequence, time, length of subject, of headers."""
_LENGTH_BYTES: Final = 4
_FIXED_BYTES: Final = _RECORD.size - _LENGTH_BYTES
_MAX_NAMED_CHARS: Final = 512
"""An id or a type longer than this is cut in the entry; the headers' digest covers all of it."""


class RecordError(ValueError):
    """Bytes that are no record."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One message of EVENTS, exactly as the log keeps it."""

    seq: int
    time_us: int
    """When EVENTS stored it, in microseconds since 1970, UTC."""
    subject: str
    headers_json: bytes
    """The headers as JSON: names sorted, ASCII, no white space."""
    data: bytes

    @classmethod
    def of(
        cls, seq: int, time_us: int, subject: str, headers: Mapping[str, str], data: bytes
    ) -> Self:
        """An event as it came from the broker."""
        encoded = json.dumps(headers, sort_keys=True, separators=(",", ":")).encode()
        return cls(seq, time_us, subject, encoded, data)

    def headers(self) -> dict[str, str]:
        """The headers.

        Raises:
            RecordError: they are no JSON object.
        """
        try:
            headers = json.loads(self.headers_json)
        except ValueError as error:
            msg = "the headers are not JSON"
            raise RecordError(msg) from error
        if not isinstance(headers, dict):
            msg = "the headers are not a JSON object"
            raise RecordError(msg)
        return headers

    def event_type(self) -> str:
        """Its CloudEvents type, empty when it has none."""
        return str(self.headers().get("ce-type", ""))

    def entry(self, headers: Mapping[str, str] | None = None) -> bytes:
        """What the tree commits to; `headers` saves parsing them when they are at hand."""
        known = self.headers() if headers is None else headers
        return json.dumps(
            {
                "data_sha256": sha256(self.data).hexdigest(),
                "headers_sha256": sha256(self.headers_json).hexdigest(),
                "id": str(known.get("ce-id", ""))[:_MAX_NAMED_CHARS],
                "seq": self.seq,
                "subject": self.subject,
                "time_us": self.time_us,
                "type": str(known.get("ce-type", ""))[:_MAX_NAMED_CHARS],
            },
            separators=(",", ":"),
        ).encode()

    def record(self) -> bytes:
        """The event as bytes; `record_length` of its first four tells how many."""
        subject = self.subject.encode()
        length = _FIXED_BYTES + len(subject) + len(self.headers_json) + len(self.data)
        head = _RECORD.pack(length, self.seq, self.time_us, len(subject), len(self.headers_json))
        return b"".join((head, subject, self.headers_json, self.data))

    @classmethod
    def from_record(cls, record: bytes) -> Self:
        """Read a whole record.

        Raises:
            RecordError: its lengths do not add up, or its subject is no text.
        """
        if len(record) < _RECORD.size:
            msg = "the record is cut short"
            raise RecordError(msg)
        length, seq, time_us, subject_bytes, headers_bytes = _RECORD.unpack_from(record)
        headers_at = _RECORD.size + subject_bytes
        data_at = headers_at + headers_bytes
        if length + _LENGTH_BYTES != len(record) or data_at > len(record):
            msg = "the record's lengths do not add up"
            raise RecordError(msg)
        try:
            subject = record[_RECORD.size : headers_at].decode()
        except UnicodeDecodeError as error:
            msg = "the subject is not UTF-8"
            raise RecordError(msg) from error
        return cls(seq, time_us, subject, record[headers_at:data_at], record[data_at:])


def record_length(prefix: bytes) -> int:
    """How many bytes the record has that begins with these four.

    Raises:
        RecordError: fewer than four bytes, or too short a length for any record.
    """
    if len(prefix) < _LENGTH_BYTES:
        msg = "the record is cut short"
        raise RecordError(msg)
    length = int.from_bytes(prefix[:_LENGTH_BYTES], "big")
    if length < _FIXED_BYTES:
        msg = "the record's length is impossible"
        raise RecordError(msg)
    return length + _LENGTH_BYTES
