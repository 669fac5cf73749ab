"""One pass over a stored log, from its first event to its signed root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from penstock_audit.adapters.log_reader import StoredRecord, read_segment
from penstock_audit.adapters.posix_files import PosixFiles
from penstock_audit.adapters.tile_log import CHECKPOINT
from penstock_audit.domain.checkpoint import Checkpoint
from penstock_audit.domain.events import RecordError
from penstock_audit.domain.merkle import leaf_hash
from penstock_audit.domain.notes import NoteError, Verifier
from penstock_audit.domain.tiles import (
    ENTRIES,
    SEGMENT_EVENTS,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TiledTree,
    join_bundle,
    segment_path,
    split_bundle,
    split_hashes,
    tile_levels,
    tile_path,
)
from penstock_audit.errors import VerificationError

Progress = Callable[[int, int], None]
"""Called with (entries verified, entries in all) now and then."""

_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A log of which every byte was checked."""

    checkpoint: Checkpoint
    verifier: Verifier
    unsigned_events: int
    """Events behind the checkpoint: of a batch that is being written, or that a crash cut off."""

    @property
    def tree_size(self) -> int:
        """How many entries the checkpoint signs."""
        return self.checkpoint.size

    @property
    def last_seq(self) -> int:
        """The EVENTS sequence of the last entry; 0 for an empty log."""
        return self.checkpoint.size


def read_signed(files: PosixFiles, verifier: Verifier) -> Checkpoint:
    """The checkpoint of the log below `files`.

    Raises:
        VerificationError: there is none, or it is not valid.
    """
    note = files.read(CHECKPOINT)
    if note is None:
        msg = f"There is no log in {files.root}: it has no checkpoint."
        raise VerificationError(msg)
    return open_note(note, verifier)


def open_note(note: bytes, verifier: Verifier) -> Checkpoint:
    """A checkpoint from its bytes.

    Raises:
        VerificationError: it is not valid.
    """
    try:
        return Checkpoint.open(note.decode(), verifier)
    except (NoteError, UnicodeDecodeError) as error:
        msg = f"The checkpoint is not valid: {error}."
        raise VerificationError(msg) from error


class LogPass:
    """One pass over one log."""

    def __init__(
        self,
        files: PosixFiles,
        verifier: Verifier,
        witnessed: dict[int, bytes],
        progress: Progress | None,
    ) -> None:
        self._files = files
        self._verifier = verifier
        self._witnessed = witnessed
        self._progress = progress
        self._size = 0
        self._tree = TiledTree()
        self._partial: dict[str, bytes] = {}
        self._entries: list[bytes] = []  # made again, of the bundle that is being read
        self._filled: list[Tile] = []

    def run(self) -> VerifiedLog:
        """Verify."""
        checkpoint = self._snapshot()
        self._size = checkpoint.size
        self._check_witnessed_sizes(checkpoint.size)
        self._check_witness()
        unsigned = 0
        for segment in range(max(1, -(-checkpoint.size // SEGMENT_EVENTS))):
            unsigned = self._check_segment(segment, checkpoint.size)
        self._check_edge(checkpoint)
        return VerifiedLog(checkpoint, self._verifier, unsigned)

    def _snapshot(self) -> Checkpoint:
        """The checkpoint with the partial tiles that go with it; a writer may replace them."""
        for _ in range(_ATTEMPTS):
            checkpoint = read_signed(self._files, self._verifier)
            paths = list(_partial_paths(checkpoint.size))
            found = {path: self._files.read(path) for path in paths}
            missing = [path for path, data in found.items() if data is None]
            if not missing:
                self._partial = {path: data or b"" for path, data in found.items()}
                return checkpoint
            if read_signed(self._files, self._verifier) == checkpoint:
                msg = f"The file {missing[0]} is missing, which {checkpoint.size} entries need."
                raise VerificationError(msg)
        msg = "The log changes faster than it can be read: verify a copy."
        raise VerificationError(msg)

    def _check_witnessed_sizes(self, size: int) -> None:
        largest = max(self._witnessed, default=0)
        if largest > size:
            msg = (
                f"A checkpoint over {largest} entries was witnessed, but this log has only {size}: "
                "it was rolled back, or is an older copy."
            )
            raise VerificationError(msg)

    def _check_witness(self) -> None:
        size = self._tree.size
        seen = self._witnessed.get(size)
        if seen is not None and seen != self._tree.root():
            msg = f"The first {size} entries have another root than was witnessed for them."
            raise VerificationError(msg)

    def _check_segment(self, segment: int, size: int) -> int:
        """Check the events of one segment; returns how many whole events follow unsigned."""
        expected = min((segment + 1) * SEGMENT_EVENTS, size) - self._tree.size
        records = read_segment(self._files, segment)
        try:
            for stored in islice(records, expected):
                self._check_event(stored)
        except RecordError as error:
            self._blame_earlier()
            raise self._bad(f"the stored event is damaged: {error}") from error
        if self._tree.size < min((segment + 1) * SEGMENT_EVENTS, size):
            self._blame_earlier()
            raise self._bad("the stored event is missing")
        return self._check_rest(segment, size, records)

    def _check_event(self, stored: StoredRecord) -> None:
        index, event = self._tree.size, stored.event
        if event.seq != index + 1:
            self._blame_earlier()
            raise self._bad(f"the stored event has sequence {event.seq} where {index + 1} belongs")
        entry = event.entry()
        self._entries.append(entry)
        self._filled = self._tree.append(leaf_hash(entry))
        if self._tree.size in self._witnessed:
            self._check_witness()
        if self._filled:
            self._check_filled()

    def _check_filled(self) -> None:
        """A bundle and its tile are complete: compare them with the files."""
        index = self._tree.size // TILE_WIDTH - 1
        bundle = self._files.read(tile_path(ENTRIES, index)) or b""
        tile = self._files.read(tile_path(0, index)) or b""
        self._compare(bundle, tile, index * TILE_WIDTH)
        for upper in self._filled[1:]:
            if self._files.read(upper.path) != upper.to_bytes():
                raise VerificationError(f"The tile {upper.path} is not that of the entries below.")
        self._entries = []
        if self._progress is not None:
            self._progress(self._tree.size, self._size)

    def _compare(self, bundle: bytes, tile: bytes, start: int) -> None:
        """Compare entries made from events with stored entries and hashes, and name the first."""
        hashes = [leaf_hash(entry) for entry in self._entries]
        if bundle == join_bundle(self._entries) and tile == b"".join(hashes):
            return
        stored_entries, stored_hashes = list(split_bundle(bundle)), split_hashes(tile)
        for offset, (entry, made) in enumerate(zip(self._entries, hashes, strict=True)):
            stored = stored_entries[offset] if offset < len(stored_entries) else None
            hashed = stored_hashes[offset] if offset < len(stored_hashes) else None
            if fault := _fault(entry, made, stored, hashed):
                raise _bad_entry(start + offset, fault)
        raise VerificationError(
            f"The bundle or tile of the entries from {start} on holds more than they do."
        )

    def _check_edge(self, checkpoint: Checkpoint) -> None:
        """The partial tiles and the root."""
        size = checkpoint.size
        start = size - size % TILE_WIDTH
        if start < size:
            bundle = self._partial[tile_path(ENTRIES, start // TILE_WIDTH, size - start)]
            tile = self._partial[tile_path(0, start // TILE_WIDTH, size - start)]
            self._compare(bundle, tile, start)
        for upper in self._tree.partial_tiles():
            if self._partial[upper.path] != upper.to_bytes():
                raise VerificationError(f"The tile {upper.path} is not that of the entries below.")
        if self._tree.root() != checkpoint.root:
            msg = (
                f"The root of the {size} stored entries is not the one that was signed, though "
                "events, entries and hashes agree: all three were rewritten, or the checkpoint "
                "belongs to another log."
            )
            raise VerificationError(msg)

    def _check_rest(self, segment: int, size: int, records: Iterator[StoredRecord]) -> int:
        """What follows the last signed event may only be the beginning of the next batch."""
        count = 0
        try:
            for stored in records:
                count += 1
                in_segment = self._tree.size + count <= (segment + 1) * SEGMENT_EVENTS
                if stored.event.seq != self._tree.size + count or not in_segment:
                    path = segment_path(segment)
                    msg = (
                        f"Behind entry {self._tree.size - 1}, {path} goes on with an event of "
                        f"sequence {stored.event.seq}: it was duplicated or put there."
                    )
                    raise VerificationError(msg)
        except RecordError as error:
            if self._tree.size < size:
                raise self._bad(f"bytes that are no event precede it: {error}") from error
        return count

    def _blame_earlier(self) -> None:
        """An event cannot be read; but did an earlier one of its bundle change?"""
        start = self._tree.size - self._tree.size % TILE_WIDTH
        index = start // TILE_WIDTH
        tile = self._stored_partial(0, index)
        bundle = self._stored_partial(ENTRIES, index)
        count = len(self._entries)
        entries = b"".join(join_bundle([entry]) for entry in islice(split_bundle(bundle), count))
        self._compare(entries, b"".join(split_hashes(tile)[:count]), start)

    def _stored_partial(self, level: int | str, index: int) -> bytes:
        prefix = tile_path(level, index)
        for path, data in self._partial.items():
            if path.startswith(f"{prefix}.p/"):
                return data
        return self._files.read(prefix) or b""

    def _bad(self, fault: str) -> VerificationError:
        """The entry that comes next is bad."""
        return _bad_entry(self._tree.size, fault)


def _bad_entry(index: int, fault: str) -> VerificationError:
    return VerificationError(f"Entry {index} (EVENTS {index + 1}): {fault}.", index=index)


def _fault(entry: bytes, made: bytes, stored: bytes | None, hashed: bytes | None) -> str | None:
    """Which of event, entry and hash stands alone against the other two."""
    if stored == entry:
        return None if hashed == made else "its hash in the tile is missing or was altered"
    if hashed == made:
        return "its entry in the bundle is missing or was altered"
    if stored is not None and leaf_hash(stored) == hashed:
        return "the stored event was altered"
    return "event, entry and hash contradict each other"


def _partial_paths(size: int) -> Iterator[str]:
    """The partial tiles and the partial bundle of a tree of `size` leaves."""
    for level in range(tile_levels(size)):
        index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
        if width:
            yield tile_path(level, index, width)
            if level == 0:
                yield tile_path(ENTRIES, index, width)
