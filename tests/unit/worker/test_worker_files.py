"""What a worker reads at its start: models on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.adapters.model_directory import model_directories, read_model


def write_model(directory: Path, **changes: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.bin").write_bytes(b"weights")
    manifest: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "parameters": 1,
        "context_tokens": 16,
        "price_input_microusd_per_1k": 1,
        "price_output_microusd_per_1k": 2,
        "sha256": {"model.bin": hashlib.sha256(b"weights").hexdigest()},
    }
    (directory / "penstock.json").write_text(json.dumps(manifest | changes))


def test_models_are_found_by_their_manifest(tmp_path: Path):
    """A directory without one is none of ours."""
    write_model(tmp_path / "b")
    write_model(tmp_path / "a")
    (tmp_path / "src").mkdir()
    assert [path.name for path in model_directories(tmp_path)] == ["a", "b"]
    assert read_model(tmp_path / "a").record().price.output_microusd_per_1k == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sha256": {"model.bin": "0" * 64}}, "model_corrupt"),
        ({"sha256": {"absent.bin": "0" * 64}}, "model_incomplete"),
        ({"context_tokens": 0}, "manifest_invalid"),
        ({"name": "../escape"}, "manifest_invalid"),
    ],
)
def test_a_model_that_is_not_what_it_says_is_refused(tmp_path: Path, changes, code):
    """The error names the file and what to do."""
    write_model(tmp_path / "m", **changes)
    with pytest.raises(PermanentError, match=r"restore|write it anew") as caught:
        read_model(tmp_path / "m")
    assert caught.value.code == code
