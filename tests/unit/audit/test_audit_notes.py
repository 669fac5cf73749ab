"""Signed notes and checkpoints, in the formats of C2SP."""

from __future__ import annotations

import base64

import pytest

from penstock_audit.domain.checkpoint import Checkpoint
from penstock_audit.domain.merkle import EMPTY_ROOT
from penstock_audit.domain.notes import NoteError, Signer, Verifier

# The example of golang.org/x/mod/sumdb/note's documentation (BSD-3-Clause): keys and note.
GO_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    GO_TEXT + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SIGNER = Signer("penstock.test/audit", bytes(32))


def test_go_reads_what_we_write() -> None:
    """Key and signature are byte for byte those of the Go implementation."""
    signer = Signer.from_text(GO_SECRET)
    assert str(signer.verifier) == GO_VKEY
    assert signer.sign(GO_TEXT) == GO_NOTE
    assert signer.secret_text() == GO_SECRET


def test_we_read_what_go_writes() -> None:
    """A note from the Go implementation verifies, also among signatures of others."""
    verifier = Verifier.from_text(GO_VKEY)
    assert verifier.open(GO_NOTE) == GO_TEXT
    stranger = SIGNER.sign(GO_TEXT).removeprefix(GO_TEXT + "\n")
    assert verifier.open(GO_NOTE + stranger) == GO_TEXT


@pytest.mark.parametrize(
    "note",
    [
        "",
        GO_TEXT,
        GO_NOTE.removesuffix("\n"),
        GO_NOTE.replace("answer", "Answer"),
        GO_NOTE.replace("—", "-"),
        GO_NOTE.replace("x08go", "x08gp"),
        GO_NOTE.replace("JnAM=", "JnAN="),
        GO_NOTE.replace("then", "then\t"),
        GO_NOTE.replace("PeterNeumann", "SomeoneElse"),
        GO_NOTE.replace("x08go/ZJ", "x08go/!!"),
        GO_TEXT + "\n— PeterNeumann x08gow==\n",
        SIGNER.sign(GO_TEXT),
    ],
)
def test_altered_notes_are_refused(note: str) -> None:
    """No signature, a wrong one, one by another key, or a broken form."""
    with pytest.raises(NoteError):
        Verifier.from_text(GO_VKEY).open(note)


@pytest.mark.parametrize(
    "text", ["", "name", "na me+00000000+AA==", GO_VKEY.replace("c74f", "c74e"), GO_VKEY[:-4]]
)
def test_altered_keys_are_refused(text: str) -> None:
    """A verifier key that was mistyped or cut is refused before it verifies anything."""
    with pytest.raises(NoteError):
        Verifier.from_text(text)
    with pytest.raises(NoteError):
        Signer.from_text(text)


@pytest.mark.parametrize("name", ["", "with space", "with+plus", "with\nline"])
def test_key_names(name: str) -> None:
    """Names that would make a signature line ambiguous are refused."""
    with pytest.raises(NoteError):
        Signer(name, bytes(32))


def test_checkpoint_round_trip() -> None:
    """A checkpoint reads back; its text has origin, size and root in three lines."""
    signed = Checkpoint.sign(SIGNER, 20852163, EMPTY_ROOT)
    assert signed.note.startswith(
        f"penstock.test/audit\n20852163\n{base64.b64encode(EMPTY_ROOT).decode()}\n\n— "
    )
    assert Checkpoint.open(signed.note, SIGNER.verifier) == signed


@pytest.mark.parametrize(
    "text",
    [
        "penstock.test/audit\n1\n",
        "penstock.test/audit\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "penstock.test/audit\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "penstock.test/audit\n1\n47DEQpj8HBQ=\n",
        "penstock.test/audit\n1\nno base64!\n",
        "another.test/log\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "penstock.test/audit\n\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """A correctly signed note that is no checkpoint of this log is refused all the same."""
    with pytest.raises(NoteError):
        Checkpoint.open(SIGNER.sign(text), SIGNER.verifier)
