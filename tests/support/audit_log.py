"""Events, logs and broken disks for the tests of audit."""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from penstock_audit.adapters.posix_files import PosixFiles
from penstock_audit.adapters.tile_log import TileLog
from penstock_audit.domain.notes import Signer
from penstock_audit.ports import StreamEvent

SIGNER = Signer("penstock.test/audit", bytes(range(32)))
VKEY = str(SIGNER.verifier)


def event(seq: int, data: bytes | None = None, event_type: str = "test.happened.v1") -> StreamEvent:
    """The event that EVENTS holds at `seq`: always the same one."""
    return StreamEvent(
        seq=seq,
        time_us=1_700_000_000_000_000 + seq,
        subject=f"v1.acme.events.test.fact-{seq % 7}",
        headers={"ce-specversion": "1.0", "ce-type": event_type, "ce-id": f"test/{seq}"},
        data=b'{"n":%d}' % seq if data is None else data,
    )


def events(first: int, last: int) -> list[StreamEvent]:
    """The events with sequences first to last."""
    return [event(seq) for seq in range(first, last + 1)]


def open_log(directory: Path) -> TileLog:
    """The log in a directory, opened by the test's signer."""
    log = TileLog(PosixFiles(directory), SIGNER)
    log.open()
    return log


def grow(log: TileLog, to: int, batch: int = 100) -> None:
    """Append events until there are `to`."""
    while log.size < to:
        log.append(events(log.size + 1, min(log.size + batch, to)))


class PowerCutError(Exception):
    """The process is gone; nothing catches this but the test."""


class FragileDisk:
    """`LogFiles` in memory that loses power at a given step, in the middle of a write.

    What was not made durable is lost, or kept, or cut, at the whim of `rng`: as with a page cache.
    `failing` makes every write fail with that errno instead.
    """

    def __init__(self, rng: random.Random, contents: dict[str, bytes] | None = None) -> None:
        self.rng = rng
        self.contents = dict(contents or {})
        self.steps = 0
        self.power_fails_at: int | None = None
        self.failing: int | None = None
        self.failing_removals = False
        self._synced = dict(self.contents)

    def after_power_cut(self) -> FragileDisk:
        """The disk as the next start finds it."""
        found = dict(self._synced)
        for path, data in self.contents.items():
            if found.get(path) != data and self.rng.random() < 0.5:
                found[path] = data
        return FragileDisk(self.rng, found)

    def read(self, path: str) -> bytes | None:
        return self.contents.get(path)

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        data = self.contents.get(path)
        return None if data is None else io.BytesIO(data)

    def write_at(self, path: str, offset: int, data: bytes) -> None:
        before = self.contents.get(path, b"")
        kept, written = before[:offset], self.rng.randint(0, len(data))
        self._step({path: kept + data[:written] + before[offset + written :]})
        self.contents[path] = self._synced[path] = kept + data

    def replace(self, path: str, data: bytes, *, durable: bool) -> None:
        self._step({})
        self.contents[path] = data
        if durable:
            self._synced[path] = data

    def remove(self, path: str) -> None:
        if self.failing_removals:
            raise OSError(errno.EROFS, "EROFS")
        self._step({})
        self.contents.pop(path, None)
        if self.rng.random() < 0.5:
            self._synced.pop(path, None)

    def walk(self, path: str) -> Iterator[str]:
        yield from sorted(name for name in self.contents if name.startswith(f"{path}/"))

    def _step(self, torn: dict[str, bytes]) -> None:
        self.steps += 1
        if self.failing is not None:
            self.contents.update(torn)
            raise OSError(self.failing, errno.errorcode[self.failing])
        if self.steps == self.power_fails_at:
            self.contents.update(torn)
            self._synced.update(torn)
            raise PowerCutError
