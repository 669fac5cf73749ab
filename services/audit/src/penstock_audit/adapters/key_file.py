"""The signing key: made at the first start, mode 0600; the public key lies beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock_audit.adapters.posix_files import PosixFiles
from penstock_audit.domain.notes import NoteError, Signer
from penstock_audit.errors import LogDamagedError

SIGNING_KEY: Final = "audit.key"
VERIFIER_KEY: Final = "audit.pub"


def load_or_create_signer(
    state_dir: Path, origin: str, random_bytes: Callable[[int], bytes]
) -> Signer:
    """The log's key. Its name is the log's origin for ever, whatever the settings say later.

    Raises:
        LogDamagedError: there is a key file that holds no key.
    """
    files = PosixFiles(state_dir)
    stored = files.read(SIGNING_KEY)
    if stored is None:
        signer = Signer.generate(origin, random_bytes)
        files.replace(SIGNING_KEY, f"{signer.secret_text()}\n".encode(), durable=True)
    else:
        signer = _parse(stored, state_dir / SIGNING_KEY)
    public = f"{signer.verifier}\n".encode()
    if files.read(VERIFIER_KEY) != public:
        files.replace(VERIFIER_KEY, public, durable=True)
    return signer


def _parse(stored: bytes, path: Path) -> Signer:
    try:
        return Signer.from_text(stored.decode())
    except (NoteError, UnicodeDecodeError) as error:
        msg = f"{path} holds no signing key ({error}): restore it from a backup."
        raise LogDamagedError(msg) from error
