"""The incremental tree, its tiles and its proofs against the recursive definition (I5)."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_audit.domain.merkle import RightEdge, leaf_hash, node_hash, perfect_root
from penstock_audit.domain.proofs import (
    consistency_proof,
    inclusion_proof,
    range_root,
    verify_consistency,
    verify_inclusion,
)
from penstock_audit.domain.tiles import (
    TILE_WIDTH,
    Tile,
    TiledTree,
    index_path,
    join_bundle,
    split_bundle,
    split_hashes,
)

LARGEST = 300
LEAVES = [leaf_hash(b"%d" % n) for n in range(70_000)]


@cache
def naive_root(start: int, end: int) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if end - start == 1:
        return LEAVES[start]
    split = 1
    while split * 2 < end - start:
        split *= 2
    return node_hash(naive_root(start, start + split), naive_root(start + split, end))


def subtree(height: int, index: int) -> bytes:
    return naive_root(index << height, (index + 1) << height)


def test_roots_of_every_size() -> None:
    """Appending leaf by leaf gives the root of the definition at every size up to 300."""
    edge, tree = RightEdge(), TiledTree()
    for size in range(1, LARGEST + 1):
        edge.append(LEAVES[size - 1])
        tree.append(LEAVES[size - 1])
        assert edge.root() == tree.root() == naive_root(0, size)
        assert range_root(subtree, 0, size) == naive_root(0, size)


def test_every_inclusion_proof() -> None:
    """For all sizes up to 300 and all leaves: verifies, and for no other leaf or place."""
    for size in range(1, LARGEST + 1):
        root = naive_root(0, size)
        for index in range(size):
            proof = inclusion_proof(subtree, index, size)
            assert verify_inclusion(LEAVES[index], index, size, proof, root)
            assert not verify_inclusion(LEAVES[index + 1], index, size, proof, root)
            assert not verify_inclusion(LEAVES[index], index + 1, size, proof, root)


def test_every_consistency_proof() -> None:
    """For all pairs of sizes up to 300: verifies, and with no other old root."""
    for new_size in range(1, LARGEST + 1):
        new_root = naive_root(0, new_size)
        for old_size in range(1, new_size + 1):
            proof = consistency_proof(subtree, old_size, new_size)
            old_root = naive_root(0, old_size)
            assert verify_consistency(old_size, new_size, old_root, new_root, proof)
            assert not verify_consistency(old_size, new_size, LEAVES[-1], new_root, proof)
            assert not verify_consistency(old_size, new_size, old_root, LEAVES[-1], proof)


@given(st.integers(1, LARGEST), st.data())
def test_altered_proofs_do_not_verify(size: int, data: st.DataObject) -> None:
    """A flipped bit, a missing or an additional node, or another size: refused."""
    index = data.draw(st.integers(0, size - 1))
    root = naive_root(0, size)
    proof = inclusion_proof(subtree, index, size)
    assert not verify_inclusion(LEAVES[index], index, size, [*proof, root], root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(proof[at], "big") ^ (1 << bit)).to_bytes(32, "big")
        assert not verify_inclusion(
            LEAVES[index], index, size, [*proof[:at], flipped, *proof[at + 1 :]], root
        )
        assert not verify_inclusion(LEAVES[index], index, size, proof[:at] + proof[at + 1 :], root)


def test_tiles_of_a_tree_of_seventy_thousand() -> None:
    """The example of the tlog-tiles specification: which tiles there are, and what is in them."""
    tree, full = TiledTree(), list[Tile]()
    for leaf in LEAVES:
        full += tree.append(leaf)
    partial = {tile.path: len(tile.hashes) for tile in tree.partial_tiles()}
    assert partial == {"tile/0/273.p/112": 112, "tile/1/001.p/17": 17, "tile/2/000.p/1": 1}
    assert sum(tile.level == 0 for tile in full) == 273
    assert [tile.path for tile in full if tile.level == 1] == ["tile/1/000"]
    for tile in [*full, *tree.partial_tiles()]:
        span = TILE_WIDTH**tile.level
        start = tile.index * TILE_WIDTH
        for at in (0, len(tile.hashes) - 1):
            assert tile.hashes[at] == naive_root((start + at) * span, (start + at + 1) * span)
    assert tree.root() == naive_root(0, len(LEAVES))


@settings(max_examples=50)
@given(st.integers(0, 1200), st.integers(0, 600))
def test_a_tree_resumes_from_its_partial_tiles(size: int, more: int) -> None:
    """Stored and read back at any size, it grows into the same tree."""
    tree = TiledTree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    levels: list[list[bytes]] = [[], []] if size else []
    for tile in tree.partial_tiles():
        levels[tile.level] = split_hashes(tile.to_bytes())
    if size < TILE_WIDTH:
        levels = levels[:1]
    resumed = TiledTree(size, levels)
    for leaf in LEAVES[size : size + more]:
        assert resumed.append(leaf) == tree.append(leaf)
    assert resumed.root() == tree.root()


@given(st.lists(st.binary(max_size=300), max_size=300))
def test_bundles_round_trip(entries: list[bytes]) -> None:
    """Entries come out of a bundle as they went in."""
    assert list(split_bundle(join_bundle(entries))) == entries


def test_paths_of_tiles() -> None:
    """The specification's example of an index in path elements."""
    assert index_path(1234067) == "x001/x234/067"
    assert index_path(0) == "000"
    assert index_path(1000) == "x001/000"


def test_perfect_root_of_any_power() -> None:
    """The root over a full subtree is that of the definition."""
    rng = random.Random(7)
    for _ in range(20):
        height = rng.randint(0, 8)
        index = rng.randint(0, 10)
        hashes = LEAVES[index << height : (index + 1) << height]
        assert perfect_root(hashes) == subtree(height, index)
