"""What audit needs of the world: files that survive a crash, events in order, and a fence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from penstock_shared.contracts.audit import AuditCheckpointed


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One message of EVENTS as the broker delivered it."""

    seq: int
    time_us: int
    subject: str
    headers: dict[str, str]
    data: bytes

    @property
    def event_type(self) -> str:
        """Its CloudEvents type, empty when it has none."""
        return self.headers.get("ce-type", "")


class LogFiles(Protocol):
    """Files below one directory; paths are relative. All methods raise OSError."""

    def read(self, path: str) -> bytes | None:
        """The whole file; None when there is none."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """The file for reading from its beginning; None when there is none."""
        ...

    def write_at(self, path: str, offset: int, data: bytes) -> None:
        """Make `data` the file's end, from `offset` on: after this returns it is on the disk."""
        ...

    def replace(self, path: str, data: bytes, *, durable: bool) -> None:
        """Readers see the old whole file or the new; with `durable` it also survives a crash."""
        ...

    def remove(self, path: str) -> None:
        """Remove the file if it is there."""
        ...

    def walk(self, path: str) -> Iterator[str]:
        """Every file below a directory."""
        ...


class EventFeed(Protocol):
    """EVENTS from the log's last entry on, without holes."""

    async def get(self) -> StreamEvent:
        """The next event; waits for ever.

        Raises:
            EventLogError: the next sequence number is missing in EVENTS.
        """
        ...

    def get_nowait(self) -> StreamEvent | None:
        """The next event if one is here.

        Raises:
            EventLogError: as `get`.
        """
        ...


class CheckpointBoard(Protocol):
    """Where checkpoints are published, one after the other, by one writer."""

    async def latest(self) -> AuditCheckpointed | None:
        """The last one published, by whomever; what is published next must follow it.

        Raises:
            UnavailableError: EVENTS does not answer.
        """
        ...

    async def publish(self, fact: AuditCheckpointed) -> None:
        """Publish the next one. Doing it again after a failure changes nothing.

        Raises:
            FencedError: somebody else has published in between.
            UnavailableError: EVENTS does not answer.
        """
        ...
