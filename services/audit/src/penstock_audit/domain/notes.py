"""Signed notes: a text, an empty line, and one line per signature.

Source: c2sp.org/signed-note. The private key's text form is that of Go's
golang.org/x/mod/sumdb/note, so that tools of that family read it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

_ED25519: Final = b"\x01"
_PRIVATE: Final = "PRIVATE+KEY+"
_KEY_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32
_LAST_CONTROL: Final = 0x1F
_MAX_NOTE_BYTES: Final = 1_000_000


class NoteError(ValueError):
    """A note, or a key, is malformed or not signed by whom it should be."""


def key_id(name: str, public_key: bytes) -> bytes:
    """Four bytes that tell keys apart; a hint, no fingerprint to trust."""
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_KEY_ID_BYTES]


def check_key_name(name: str) -> str:
    """Return `name` if it may name a key.

    Raises:
        NoteError: it is empty, or holds white space or a plus.
    """
    if not name or "+" in name or any(c.isspace() for c in name):
        msg = f"{name!r} cannot name a key: it is empty, or holds white space or '+'"
        raise NoteError(msg)
    return name


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "not base64"
        raise NoteError(msg) from error
    if _encode(data) != text:  # bits behind the data's end: a note has one form only
        msg = "not base64 in its only form"
        raise NoteError(msg)
    return data


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key_parts(text: str) -> tuple[str, str, bytes]:
    """Name, key id in hex, and the key's 32 bytes, of `<name>+<id>+<base64>`."""
    name, _, rest = text.strip().partition("+")
    identifier, _, encoded = rest.partition("+")
    key = _decode(encoded)
    if key[:1] != _ED25519 or len(key) != 1 + _KEY_BYTES:
        msg = "not an Ed25519 key of the form <name>+<id>+<base64>"
        raise NoteError(msg)
    return check_key_name(name), identifier, key[1:]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name."""

    name: str
    public_key: bytes

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `<name>+<key id>+<base64>`.

        Raises:
            NoteError: it is malformed, or its key id is not that of its key.
        """
        name, identifier, key = _key_parts(text)
        if identifier != key_id(name, key).hex():
            msg = "the key's id does not fit its name and bytes: it was altered or cut"
            raise NoteError(msg)
        return cls(name, key)

    def __str__(self) -> str:
        """The verifier key line that is handed to auditors."""
        identifier = key_id(self.name, self.public_key).hex()
        return f"{self.name}+{identifier}+{_encode(_ED25519 + self.public_key)}"

    def open(self, note: str) -> str:
        """The note's text, once this key's signature on it has been verified.

        Raises:
            NoteError: no signature by this key, a wrong one, or no note at all.
        """
        text, signatures = _split(note)
        ours = [s for name, s in signatures if name == self.name and s[:4] == self._id]
        if not ours:
            msg = f"no signature by {self.name} (key {self._id.hex()})"
            raise NoteError(msg)
        key = Ed25519PublicKey.from_public_bytes(self.public_key)
        for signature in ours:
            try:
                key.verify(signature[_KEY_ID_BYTES:], text.encode())
            except InvalidSignature as error:
                msg = f"the signature by {self.name} is wrong"
                raise NoteError(msg) from error
        return text

    @property
    def _id(self) -> bytes:
        return key_id(self.name, self.public_key)


class Signer:
    """A private key with its name."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(check_key_name(name), self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str, random_bytes: Callable[[int], bytes]) -> Self:
        """A new key."""
        return cls(name, random_bytes(_KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the private key's text form.

        Raises:
            NoteError: it is malformed.
        """
        if not text.startswith(_PRIVATE):
            msg = "no private key: it must begin with PRIVATE+KEY+"
            raise NoteError(msg)
        name, identifier, seed = _key_parts(text.removeprefix(_PRIVATE))
        signer = cls(name, seed)
        if identifier != key_id(name, signer.verifier.public_key).hex():
            msg = "the key's id does not fit its name and bytes: it was altered or cut"
            raise NoteError(msg)
        return signer

    def secret_text(self) -> str:
        """The private key's text form."""
        identifier = key_id(self.verifier.name, self.verifier.public_key).hex()
        return f"{_PRIVATE}{self.verifier.name}+{identifier}+{_encode(_ED25519 + self._seed)}"

    def sign(self, text: str) -> str:
        """The signed note over `text`, which ends with a newline."""
        name, public_key = self.verifier.name, self.verifier.public_key
        signature = key_id(name, public_key) + self._key.sign(text.encode())
        return f"{text}\n\u2014 {name} {_encode(signature)}\n"


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures of a note."""
    if len(note) > _MAX_NOTE_BYTES or any(ord(c) <= _LAST_CONTROL and c != "\n" for c in note):
        msg = "not a note: too long, or it holds control characters"
        raise NoteError(msg)
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        msg = "not a note: an empty line and a signature are missing"
        raise NoteError(msg)
    return head + "\n", [_signature(line) for line in tail.removesuffix("\n").split("\n")]


def _signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "\u2014":
        msg = "not a note: a signature line must begin with an em dash"
        raise NoteError(msg)
    signature = _decode(encoded)
    if len(signature) <= _KEY_ID_BYTES:
        msg = "not a note: a signature is too short"
        raise NoteError(msg)
    return check_key_name(name), signature
