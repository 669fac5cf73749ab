"""Checkpoints: the signed statement "the first `size` entries have this root".

Source: c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final, Self

from penstock_audit.domain.merkle import HASH_BYTES
from penstock_audit.domain.notes import NoteError, Signer, Verifier

_LINES: Final = 3


def encode_root(root: bytes) -> str:
    """A root hash as checkpoints write it."""
    return base64.b64encode(root).decode()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head. `note` is the whole signed note."""

    origin: str
    size: int
    root: bytes
    note: str

    @property
    def root_base64(self) -> str:
        """The root as the checkpoint's third line has it."""
        return encode_root(self.root)

    @classmethod
    def sign(cls, signer: Signer, size: int, root: bytes) -> Self:
        """Sign a tree head; the origin is the key's name."""
        origin = signer.verifier.name
        text = f"{origin}\n{size}\n{encode_root(root)}\n"
        return cls(origin, size, root, signer.sign(text))

    @classmethod
    def open(cls, note: str, verifier: Verifier) -> Self:
        """Verify a signed note, then read it.

        Raises:
            NoteError: signature, origin or form is wrong.
        """
        lines = verifier.open(note).removesuffix("\n").split("\n")
        if len(lines) < _LINES or not all(lines):
            msg = "not a checkpoint: origin, size and root are missing"
            raise NoteError(msg)
        origin, size, encoded = lines[:_LINES]
        root = _decode_root(encoded)
        if origin != verifier.name:
            msg = f"this is the checkpoint of {origin}, not of {verifier.name}"
            raise NoteError(msg)
        if not (size.isascii() and size.isdigit()) or str(int(size)) != size:
            msg = "not a checkpoint: the size is no plain number"
            raise NoteError(msg)
        return cls(origin, int(size), root, note)


def _decode_root(encoded: str) -> bytes:
    try:
        root = base64.b64decode(encoded, validate=True)
    except ValueError:
        root = b""
    if len(root) != HASH_BYTES:
        msg = "not a checkpoint: the root is no SHA-256 hash"
        raise NoteError(msg)
    return root
