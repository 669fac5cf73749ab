"""Inclusion and consistency proofs: made from perfect subtrees, verified from nothing.

Sources: RFC 6962 §2.1.1 and §2.1.2 for making them; RFC 9162 §2.1.3.2 and §2.1.4.2 for the
verification, whose trees are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock_audit.domain.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

Subtree = Callable[[int, int], bytes]
"""(height, index) → the root over leaves [index << height, (index + 1) << height)."""


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def range_root(subtree: Subtree, start: int, end: int) -> bytes:
    """The root over leaves [start, end), as it occurs in a tree where that range is a node."""
    size = end - start
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return subtree(height, start >> height)
    middle = start + _split(size)
    return node_hash(range_root(subtree, start, middle), range_root(subtree, middle, end))


def inclusion_proof(subtree: Subtree, index: int, size: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, from the leaf upwards.

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        msg = f"a tree of {size} leaves has no leaf {index}"
        raise ValueError(msg)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(subtree, middle, end))
            end = middle
        else:
            path.append(range_root(subtree, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(subtree: Subtree, old_size: int, new_size: int) -> list[bytes]:
    """The proof that the first `old_size` leaves are a prefix of the first `new_size`.

    Raises:
        ValueError: the sizes are not 0 < old_size <= new_size.
    """
    if not 0 < old_size <= new_size:
        msg = f"no proof leads from {old_size} to {new_size} leaves"
        raise ValueError(msg)
    path: list[bytes] = []
    start, end = 0, new_size
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(range_root(subtree, middle, end))
            end = middle
        else:
            path.append(range_root(subtree, start, middle))
            start = middle
    if start > 0:  # else the old tree is this very node, whose root the verifier knows
        path.append(range_root(subtree, start, end))
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that the leaf hash `leaf` stands at `index` under `root`."""
    if not 0 <= index < size or any(len(node) != HASH_BYTES for node in (leaf, root, *proof)):
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position & 1 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the tree under `new_root` only appended to that of `old_root`."""
    if any(len(node) != HASH_BYTES for node in (old_root, new_root, *proof)):
        return False
    if not 0 < old_size <= new_size:
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    return _climb(old_size - 1, new_size - 1, path) == (old_root, new_root)


def _climb(position: int, last: int, path: list[bytes]) -> tuple[bytes, bytes] | None:
    """Both roots, from a consistency proof that begins with their common subtree."""
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position & 1 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return (old, new) if last == 0 else None
