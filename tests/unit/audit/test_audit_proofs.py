"""Hashes and proofs against published vectors."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from penstock_audit.domain.merkle import EMPTY_ROOT, RightEdge, leaf_hash
from penstock_audit.domain.proofs import verify_consistency, verify_inclusion

VECTORS = Path(__file__).parents[2] / "data" / "rfc6962" / "inclusion.jsonl"
CASES = [json.loads(line) for line in VECTORS.read_text().splitlines()]

LEAVES = [
    bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
] + [bytes(range(0x60, 0x70))]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["_case"])
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    """Each of transparency-dev's 98 cases is accepted or refused as they say (I5)."""
    verified = verify_inclusion(
        _bytes(case["leafHash"]),
        case["leafIdx"],
        case["treeSize"],
        [_bytes(node) for node in case["proof"] or []],
        _bytes(case["root"]),
    )
    assert verified is not case["wantErr"]


def test_roots_of_certificate_transparency() -> None:
    """The eight roots of the reference test tree that CT implementations share (I5)."""
    edge = RightEdge()
    assert edge.root() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        edge.append(leaf_hash(leaf))
        assert edge.root().hex() == root


def test_consistency_from_and_to_nothing() -> None:
    """An empty tree proves nothing, and equal trees need the empty proof."""
    root = leaf_hash(b"")
    assert not verify_consistency(0, 1, EMPTY_ROOT, root, [])
    assert verify_consistency(1, 1, root, root, [])
    assert not verify_consistency(1, 1, root, root, [root])
    assert not verify_consistency(2, 1, root, root, [])
    assert not verify_consistency(1, 2, root, root, [])


def test_right_edge_refuses_a_stack_that_does_not_fit() -> None:
    """A stored right edge of the wrong length is an error, not another tree."""
    with pytest.raises(ValueError, match="full subtrees"):
        RightEdge(3, [leaf_hash(b"")])
