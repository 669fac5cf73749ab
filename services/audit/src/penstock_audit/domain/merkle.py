"""Merkle tree hashing, and the right edge of a growing tree.

Source: RFC 6962 §2.1. A leaf is hashed with the prefix 0x00, a node with 0x01, so that neither
can pass for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, Self

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


class RightEdge:
    """The roots of the full subtrees that a tree of `size` leaves consists of, largest first.

    Appending costs one hash on average; the state is one hash per bit set in `size`.
    """

    __slots__ = ("_size", "_stack")

    def __init__(self, size: int = 0, stack: Iterable[bytes] = ()) -> None:
        self._size = size
        self._stack = list(stack)
        if len(self._stack) != size.bit_count():
            msg = f"a tree of {size} leaves has {size.bit_count()} full subtrees"
            raise ValueError(msg)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(self._size, self._stack)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf; returns the roots of the full subtrees it completed, of height 1, 2, …."""
        completed = []
        node, rest = leaf, self._size
        while rest & 1:
            node = node_hash(self._stack.pop(), node)
            completed.append(node)
            rest >>= 1
        self._stack.append(node)
        self._size += 1
        return completed

    def root(self) -> bytes:
        """The tree's root; that of an empty tree is the hash of nothing."""
        if not self._stack:
            return EMPTY_ROOT
        root = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            root = node_hash(left, root)
        return root
