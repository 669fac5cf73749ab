"""Reading a stored log: events one by one, hashes by their place in the tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock_audit.domain.events import LoggedEvent, RecordError, record_length
from penstock_audit.domain.merkle import HASH_BYTES, perfect_root
from penstock_audit.domain.tiles import (
    SEGMENT_EVENTS,
    TILE_HEIGHT,
    TILE_WIDTH,
    segment_path,
    split_hashes,
    tile_levels,
    tile_path,
)
from penstock_audit.errors import LogDamagedError
from penstock_audit.ports import LogFiles

_PREFIX_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One event of a segment file, and where its record ends there."""

    event: LoggedEvent
    end: int


def read_segment(files: LogFiles, segment: int) -> Iterator[StoredRecord]:
    """The records of one segment file, from its beginning.

    Raises:
        RecordError: what follows is no whole record.
    """
    opened = files.open(segment_path(segment))
    if opened is None:
        return
    with opened as file:
        end = 0
        while prefix := file.read(_PREFIX_BYTES):
            rest_bytes = record_length(prefix) - _PREFIX_BYTES
            rest = file.read(rest_bytes)
            if len(rest) != rest_bytes:
                msg = "the record is cut short"
                raise RecordError(msg)
            end += _PREFIX_BYTES + rest_bytes
            yield StoredRecord(LoggedEvent.from_record(prefix + rest), end)


class TileReader:
    """The hashes of a stored tree of `size` leaves."""

    def __init__(self, files: LogFiles, size: int) -> None:
        self._files = files
        self._size = size
        self._cached: tuple[int, int, list[bytes]] | None = None

    def tile(self, level: int, index: int) -> list[bytes]:
        """The hashes of one tile as far as this tree has them.

        Raises:
            LogDamagedError: the file is missing or too short.
        """
        if self._cached is not None and self._cached[:2] == (level, index):
            return self._cached[2]
        known = (self._size >> TILE_HEIGHT * level) - index * TILE_WIDTH
        width = min(known, TILE_WIDTH)
        data = self._files.read(tile_path(level, index, width))
        if data is None:  # the tree has grown since this size was read
            data = self._files.read(tile_path(level, index))
        if data is None or len(data) < width * HASH_BYTES:
            msg = f"The tile {tile_path(level, index, width)} is missing or too short."
            raise LogDamagedError(msg)
        hashes = split_hashes(data[: width * HASH_BYTES])
        self._cached = (level, index, hashes)
        return hashes

    def subtree(self, height: int, index: int) -> bytes:
        """The root over leaves [index << height, (index + 1) << height).

        Raises:
            LogDamagedError: a tile is missing.
        """
        level, rest = divmod(height, TILE_HEIGHT)
        start = index << rest
        hashes = self.tile(level, start // TILE_WIDTH)
        offset = start % TILE_WIDTH
        return perfect_root(hashes[offset : offset + (1 << rest)])

    def levels_at(self, size: int) -> list[list[bytes]]:
        """The partial tiles that the tree had when it had `size` leaves.

        Above level 0 they are hashed from the full tiles below, which are on the disk before any
        checkpoint relies on them; a partial tile may be gone after a power cut.

        Raises:
            LogDamagedError: a tile is missing.
        """
        levels = []
        for level in range(tile_levels(size)):
            index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
            if level == 0:
                levels.append(self.tile(0, index)[:width] if width else [])
            else:
                below = range(index * TILE_WIDTH, index * TILE_WIDTH + width)
                levels.append([perfect_root(self.tile(level - 1, n)) for n in below])
        return levels


def segment_of(index: int) -> int:
    """The segment that holds the event at `index`."""
    return index // SEGMENT_EVENTS
