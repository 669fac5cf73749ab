"""The log on the disk: events in segments, hashes and entries in tiles, and one checkpoint.

Order of writing, per batch: events (fsync), full tiles and bundles (fsync), partial ones, the
signed checkpoint (fsync, rename, fsync of the directory). The events and the checkpoint are the
truth; tiles can be made again from the events. So a crash at any step leaves the old checkpoint
with perhaps more behind it, which the next start cuts off: EVENTS still has it, and the same
events give the same tree, hence no fork.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from penstock_audit.adapters.log_reader import TileReader, read_segment, segment_of
from penstock_audit.domain.checkpoint import Checkpoint
from penstock_audit.domain.events import LoggedEvent, RecordError
from penstock_audit.domain.merkle import leaf_hash
from penstock_audit.domain.notes import NoteError, Signer
from penstock_audit.domain.proofs import range_root
from penstock_audit.domain.tiles import (
    ENTRIES,
    SEGMENT_EVENTS,
    TILE_WIDTH,
    Tile,
    TiledTree,
    join_bundle,
    segment_path,
    tile_path,
)
from penstock_audit.errors import LogDamagedError
from penstock_audit.ports import LogFiles, StreamEvent

CHECKPOINT: Final = "checkpoint"


@dataclass(slots=True)
class _Edge:
    """Where the log ends: what the next batch builds on."""

    tree: TiledTree
    bundle: list[bytes] = field(default_factory=list)
    """The entries of the partial bundle."""
    segment_bytes: int = 0
    """Where the next record goes in its segment."""

    def copy(self) -> _Edge:
        return _Edge(self.tree.copy(), self.bundle.copy(), self.segment_bytes)


@dataclass(slots=True)
class _Growth:
    """What one batch adds to the files."""

    records: dict[int, tuple[int, list[bytes]]] = field(default_factory=dict)
    """By segment: where its new records begin, and the records."""
    tiles: list[Tile] = field(default_factory=list)
    bundles: dict[int, list[bytes]] = field(default_factory=dict)


class TileLog:
    """An append-only log that is signed after every batch. One process may write it."""

    def __init__(self, files: LogFiles, signer: Signer) -> None:
        self._files = files
        self._signer = signer
        self._edge = _Edge(TiledTree())
        self._partial_paths: set[str] = set()
        self._checkpoint: Checkpoint | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The latest signed checkpoint."""
        if self._checkpoint is None:
            msg = "the log has not been opened"
            raise RuntimeError(msg)
        return self._checkpoint

    @property
    def size(self) -> int:
        """How many entries are signed; EVENTS starts at 1, so it is the last one's sequence."""
        return self.checkpoint.size

    def open(self) -> None:
        """Read the log's end, and cut off what lies behind the last checkpoint.

        Raises:
            LogDamagedError: checkpoint and events do not belong together.
        """
        note = self._files.read(CHECKPOINT)
        if note is None:
            self._create()
            return
        try:
            checkpoint = Checkpoint.open(note.decode(), self._signer.verifier)
        except (NoteError, UnicodeDecodeError) as error:
            msg = f"The log's checkpoint is not valid: {error}."
            raise LogDamagedError(msg) from error
        self._edge = self._recover(checkpoint)
        self._cut()
        self._write_partials(self._edge)
        self._remove_stale_partials()
        self._checkpoint = checkpoint

    def append(self, events: Sequence[StreamEvent]) -> Checkpoint:
        """Log the events behind the last one, and sign: when this returns it is on the disk.

        After an OSError the log is as it was, and the same events can be appended again.
        """
        edge, growth = self._edge.copy(), _Growth()
        for event in events:
            self._grow(edge, growth, event)
        for segment, (offset, records) in growth.records.items():
            self._files.write_at(segment_path(segment), offset, b"".join(records))
        self._write_full(growth)
        self._write_partials(edge)
        checkpoint = Checkpoint.sign(self._signer, edge.tree.size, edge.tree.root())
        self._files.replace(CHECKPOINT, checkpoint.note.encode(), durable=True)
        self._edge, self._checkpoint = edge, checkpoint
        self._remove_superseded_partials()
        return checkpoint

    def root_at(self, size: int) -> bytes:
        """The root that the tree had when it had `size` entries.

        Raises:
            LogDamagedError: a tile is missing.
        """
        return range_root(TileReader(self._files, self.size).subtree, 0, size)

    def last_event(self) -> LoggedEvent | None:
        """The last signed event. Safe beside an `append` in another thread."""
        size = self.size
        segment = segment_of(max(size - 1, 0))
        events = (stored.event for stored in read_segment(self._files, segment))
        return next((event for event in events if event.seq == size), None) if size else None

    def _create(self) -> None:
        """Begin a log with a signed empty tree, so that a lost checkpoint is never mistaken."""
        if next(iter(self._files.walk("events")), None) is not None:
            msg = "The log has events but no checkpoint: restore its directory from a backup."
            raise LogDamagedError(msg)
        checkpoint = Checkpoint.sign(self._signer, 0, TiledTree().root())
        self._files.replace(CHECKPOINT, checkpoint.note.encode(), durable=True)
        self._checkpoint = checkpoint

    def _grow(self, edge: _Edge, growth: _Growth, event: StreamEvent) -> None:
        index = edge.tree.size
        if event.seq != index + 1:
            msg = f"event {event.seq} cannot stand at index {index}"
            raise ValueError(msg)
        logged = LoggedEvent.of(event.seq, event.time_us, event.subject, event.headers, event.data)
        self._keep_record(edge, growth, segment_of(index), logged.record())
        tiles = _add_entry(edge, logged.entry(event.headers))
        growth.tiles += tiles
        if tiles:
            growth.bundles[index // TILE_WIDTH] = edge.bundle
            edge.bundle = []

    @staticmethod
    def _keep_record(edge: _Edge, growth: _Growth, segment: int, record: bytes) -> None:
        if edge.tree.size % SEGMENT_EVENTS == 0:
            edge.segment_bytes = 0
        _, records = growth.records.setdefault(segment, (edge.segment_bytes, []))
        records.append(record)
        edge.segment_bytes += len(record)

    def _write_full(self, growth: _Growth) -> None:
        for index, entries in growth.bundles.items():
            self._files.replace(tile_path(ENTRIES, index), join_bundle(entries), durable=True)
        for tile in growth.tiles:
            self._files.replace(tile.path, tile.to_bytes(), durable=True)

    def _write_partials(self, edge: _Edge) -> None:
        """Not synced: the next start makes them again."""
        for path, data in _partial_files(edge):
            self._files.replace(path, data, durable=False)

    def _remove_superseded_partials(self) -> None:
        current = {path for path, _ in _partial_files(self._edge)}
        for path in self._partial_paths - current:
            with suppress(OSError):  # the batch is signed; the next start removes leftovers
                self._files.remove(path)
        self._partial_paths = current

    def _remove_stale_partials(self) -> None:
        """Leftovers of a batch that a crash has stopped."""
        self._partial_paths = {path for path in self._files.walk("tile") if ".p/" in path}
        self._remove_superseded_partials()

    def _recover(self, checkpoint: Checkpoint) -> _Edge:
        """The log's end: from the last segment's events, or from all of them if tiles are lost.

        Raises:
            LogDamagedError: the events do not give the root that was signed.
        """
        if checkpoint.size == 0:
            return _Edge(TiledTree())
        start = segment_of(checkpoint.size - 1) * SEGMENT_EVENTS
        try:
            tree = TiledTree(start, TileReader(self._files, checkpoint.size).levels_at(start))
            self._replay(_Edge(tree.copy()), checkpoint, repair=False)
        except LogDamagedError:
            tree = TiledTree()
            self._replay(_Edge(tree.copy()), checkpoint, repair=False)
        return self._replay(_Edge(tree), checkpoint, repair=True)

    def _replay(self, edge: _Edge, checkpoint: Checkpoint, *, repair: bool) -> _Edge:
        """Hash the stored events again from where `edge` ends.

        Only a second run, once the signed root has come out, may `repair` tiles: what lies on the
        disk of a damaged log is evidence.
        """
        for segment in range(segment_of(edge.tree.size), segment_of(checkpoint.size - 1) + 1):
            try:
                self._replay_segment(edge, segment, checkpoint.size, repair=repair)
            except RecordError as error:
                msg = f"Event {edge.tree.size + 1} of the log is damaged: {error}."
                raise LogDamagedError(msg) from error
        if edge.tree.size != checkpoint.size or edge.tree.root() != checkpoint.root:
            msg = (
                f"The stored events do not give the root that was signed for {checkpoint.size}: "
                "find the first bad one with 'penstock audit verify', and restore a backup."
            )
            raise LogDamagedError(msg)
        return edge

    def _replay_segment(self, edge: _Edge, segment: int, size: int, *, repair: bool) -> None:
        for stored in read_segment(self._files, segment):
            index = edge.tree.size
            filled = _add_entry(edge, stored.event.entry())
            edge.segment_bytes = stored.end
            if filled:
                entries, edge.bundle = edge.bundle, []
                if repair:
                    self._repair(tile_path(ENTRIES, index // TILE_WIDTH), join_bundle(entries))
                    for tile in filled:
                        self._repair(tile.path, tile.to_bytes())
            if edge.tree.size == size:
                return

    def _repair(self, path: str, data: bytes) -> None:
        if self._files.read(path) != data:
            self._files.replace(path, data, durable=True)

    def _cut(self) -> None:
        """Remove events that no checkpoint covers."""
        size = self._edge.tree.size
        keep = {segment_path(n) for n in range(segment_of(max(size - 1, 0)) + 1)}
        if size:
            last = segment_path(segment_of(size - 1))
            self._files.write_at(last, self._edge.segment_bytes, b"")
        else:
            keep = set()
        for path in self._files.walk("events"):
            if path not in keep:
                self._files.remove(path)


def _add_entry(edge: _Edge, entry: bytes) -> list[Tile]:
    edge.bundle.append(entry)
    return edge.tree.append(leaf_hash(entry))


def _partial_files(edge: _Edge) -> Iterable[tuple[str, bytes]]:
    for tile in edge.tree.partial_tiles():
        yield tile.path, tile.to_bytes()
    if edge.bundle:
        index = edge.tree.size // TILE_WIDTH
        yield tile_path(ENTRIES, index, len(edge.bundle)), join_bundle(edge.bundle)
