"""The models of a directory: which are there, and whether they are what they say."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelManifest

_MANIFEST = "penstock.json"


def model_directories(models_dir: Path) -> list[Path]:
    """Every directory with a manifest, in order of name."""
    return sorted(path.parent for path in models_dir.glob(f"*/{_MANIFEST}"))


def read_model(directory: Path) -> ModelManifest:
    """Read a model's manifest and verify its files.

    Raises:
        PermanentError: something is missing or was changed; the message says what to do.
    """
    try:
        manifest = ModelManifest.model_validate_json((directory / _MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{directory / _MANIFEST} is unreadable: write it anew (models/README.md)."
        raise PermanentError(msg, code="manifest_invalid") from error
    for name, expected in manifest.sha256.items():
        path = directory / name
        if not path.is_file():
            msg = f"{path} is missing: restore it from the model's export."
            raise PermanentError(msg, code="model_incomplete")
        if _sha256(path) != expected:
            msg = f"{path} is not what {_MANIFEST} says: restore it, or update the manifest."
            raise PermanentError(msg, code="model_corrupt")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
