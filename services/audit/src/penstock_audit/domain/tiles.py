"""The tree cut into tiles of 256 hashes, and entries into bundles of 256.

Source: c2sp.org/tlog-tiles. Full tiles never change; the partial one at the right edge of each
level is replaced by a wider one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from penstock_audit.domain.merkle import HASH_BYTES, RightEdge, perfect_root

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
SEGMENT_EVENTS: Final = 16 * TILE_WIDTH
"""How many events one segment file holds."""
ENTRIES: Final = "entries"
_LENGTH_BYTES: Final = 2


def index_path(index: int) -> str:
    """`1234067` → `x001/x234/067`."""
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return path


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """Where a tile lies; level `entries` is that of the bundles."""
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{index_path(index)}{partial}"


def segment_path(index: int) -> str:
    """Where the events [index * SEGMENT_EVENTS, (index + 1) * SEGMENT_EVENTS) lie."""
    return f"events/{index_path(index)}"


def tile_levels(size: int) -> int:
    """How many levels of tiles a tree of `size` leaves has."""
    levels = 0
    while size:
        levels, size = levels + 1, size >> TILE_HEIGHT
    return levels


@dataclass(frozen=True, slots=True)
class Tile:
    """Consecutive hashes of one level; partial when fewer than 256."""

    level: int
    index: int
    hashes: tuple[bytes, ...]

    @property
    def path(self) -> str:
        """Where it lies."""
        return tile_path(self.level, self.index, len(self.hashes))

    def to_bytes(self) -> bytes:
        """What lies there."""
        return b"".join(self.hashes)


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def join_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries, each behind its length in two bytes."""
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def split_bundle(data: bytes) -> Iterator[bytes]:
    """The entries of a bundle, the last one cut short if the bundle is."""
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        yield data[start:at]


class TiledTree:
    """A growing tree that hands out its tiles."""

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        """`levels[n]` are the hashes of the partial tile of level n; missing ones are empty.

        Raises:
            ValueError: their numbers are not those of a tree of `size` leaves.
        """
        self._levels = [list(hashes) for hashes in levels]
        widths = [(size >> TILE_HEIGHT * n) % TILE_WIDTH for n in range(len(levels))]
        if widths != [len(hashes) for hashes in levels] or size >> TILE_HEIGHT * len(levels):
            msg = f"these are not the partial tiles of a tree of {size} leaves"
            raise ValueError(msg)
        self._edge = RightEdge(size, _full_subtrees(self._levels))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._edge.size

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(self.size, self._levels)

    def root(self) -> bytes:
        """The tree's root."""
        return self._edge.root()

    def append(self, leaf: bytes) -> list[Tile]:
        """Add a leaf hash; returns the tiles that it filled."""
        completed = [leaf, *self._edge.append(leaf)]
        filled = []
        for level, node in enumerate(completed[::TILE_HEIGHT]):
            if level == len(self._levels):
                self._levels.append([])
            hashes = self._levels[level]
            hashes.append(node)
            if len(hashes) == TILE_WIDTH:
                index = (self.size >> TILE_HEIGHT * (level + 1)) - 1
                filled.append(Tile(level, index, tuple(hashes)))
                hashes.clear()
        return filled

    def partial_tiles(self) -> list[Tile]:
        """The tiles at the right edge that are not full, the empty ones left out."""
        return [
            Tile(level, self.size >> TILE_HEIGHT * (level + 1), tuple(hashes))
            for level, hashes in enumerate(self._levels)
            if hashes
        ]


def _full_subtrees(levels: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    """The roots that a right edge consists of, largest first."""
    for hashes in reversed(levels):
        start = 0
        for height in reversed(range(TILE_HEIGHT)):
            if len(hashes) >> height & 1:
                yield perfect_root(hashes[start : start + (1 << height)])
                start += 1 << height
