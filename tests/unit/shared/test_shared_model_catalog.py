"""Model files on disk: where versions are found, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest, verify

WEIGHTS = b"weights" * 1000


def write_model(directory: Path, **changes: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.bin").write_bytes(WEIGHTS)
    manifest: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "parameters": 1,
        "context_tokens": 16,
        "price_input_microusd_per_1k": 1,
        "price_output_microusd_per_1k": 2,
        "sha256": {"model.bin": hashlib.sha256(WEIGHTS).hexdigest()},
    }
    (directory / "penstock.json").write_text(json.dumps(manifest | changes))
    return directory


def test_both_layouts_are_found(tmp_path):
    """A bundled model lies in its name's directory, an added one a level below; others do not."""
    bundled = write_model(tmp_path / "bundled" / "tiny")
    added = write_model(tmp_path / "store" / "tiny" / "2", version="2")
    catalog = ModelCatalog([tmp_path / "bundled", tmp_path / "store", tmp_path / "absent", None])
    assert catalog.find("tiny", "1") == bundled
    assert catalog.find("tiny", "2") == added
    assert catalog.find("tiny", "3") is None
    assert catalog.find("other", "1") is None
    assert [path for path, _ in catalog.bundled()] == [bundled]


def test_a_copy_under_way_and_a_broken_neighbour_do_not_count(tmp_path):
    """What a killed `penstock models add` left is no version, and one bad manifest hides none."""
    write_model(tmp_path / "tiny" / ".2.partial", version="2")
    write_model(tmp_path / ".tiny.partial")
    write_model(tmp_path / "broken", context_tokens=0)
    good = write_model(tmp_path / "tiny")
    catalog = ModelCatalog([tmp_path])
    assert catalog.find("tiny", "2") is None
    assert [path for path, _ in catalog.bundled()] == [good]


@pytest.mark.parametrize(
    "changes",
    [
        {"context_tokens": 0},
        {"name": "../escape"},
        {"version": "../1"},
        {"sha256": {"../other/model.bin": "00"}},
        {"sha256": {"/etc/hostname": "00"}},
        {"sha256": {"link": "00"}},
    ],
)
def test_a_manifest_that_lies_or_leads_outside_is_refused(tmp_path, changes):
    """Names that escape the directory are refused unread, links that leave it as well."""
    directory = write_model(tmp_path / "m", **changes)
    (directory / "link").symlink_to("/etc/hostname")
    with pytest.raises(PermanentError, match="write it anew") as caught:
        read_manifest(directory)
    assert caught.value.code == "manifest_invalid"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (WEIGHTS[:-1], "model_corrupt"),
        (b"X" + WEIGHTS[1:], "model_corrupt"),
        (None, "model_incomplete"),
    ],
)
def test_truncated_changed_and_missing_weights_are_noticed(tmp_path, content, code):
    """The checksum finds a byte too few and a byte that changed; the error says what to do."""
    directory = write_model(tmp_path / "m")
    manifest = read_manifest(directory)
    verify(directory, manifest)
    weights = directory / "model.bin"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(PermanentError, match="restore it") as caught:
        verify(directory, manifest)
    assert caught.value.code == code
