"""What a worker finds on disk: which versions are here, and what a broken one says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import Engine, ModelLimits, ModelRecord
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest, verify
from penstock_worker.adapters.ctranslate2_devices import choose_target
from penstock_worker.adapters.layout_store import LayoutStore
from penstock_worker.adapters.machine import Machine
from penstock_worker.adapters.model_shelf import DiskShelf, ShelfWithEcho
from penstock_worker.adapters.tuner import Tuner

_REFERENCE = Path(__file__).parents[3] / "models" / "penstock-small"
_WEIGHTS = b"weights"


def write_model(directory: Path, **changes: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.bin").write_bytes(_WEIGHTS)
    manifest: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "parameters": 1,
        "context_tokens": 16,
        "price_input_microusd_per_1k": 1,
        "price_output_microusd_per_1k": 2,
        "sha256": {"model.bin": hashlib.sha256(_WEIGHTS).hexdigest()},
    }
    (directory / "penstock.json").write_text(json.dumps(manifest | changes))


def shelf_of(*directories: Path) -> DiskShelf:
    """Untuned, on two processors."""
    layouts = LayoutStore(None)
    return DiskShelf(
        ModelCatalog(directories),
        layouts,
        Tuner(layouts, SystemClock(), budget_s=0),
        choose_target("cpu"),
        Machine(processor="test", processors=2, memory_bytes=2**32),
    )


def record(name: str = "penstock-small", version: str = "1.0.0", **changes: object) -> ModelRecord:
    return ModelRecord(
        name=name,
        version=version,
        parameters=1,
        context_tokens=1024,
        price=Price(input_microusd_per_1k=0, output_microusd_per_1k=0),
    ).model_copy(update=changes)


def copy_of_reference(directory: Path, **changes: object) -> Path:
    shutil.copytree(_REFERENCE, directory)
    manifest = json.loads((directory / "penstock.json").read_text())
    (directory / "penstock.json").write_text(json.dumps(manifest | changes))
    return directory


def test_bundled_models_and_added_versions_lie_side_by_side(tmp_path: Path):
    """A version is found by what its manifest says; a directory without one is none of ours."""
    bundled, store = tmp_path / "models", tmp_path / "store"
    write_model(bundled / "tiny")
    (bundled / "src").mkdir()
    write_model(store / "tiny" / "2", version="2")
    write_model(store / "other" / "1", name="other")
    write_model(store / ".unfinished", name="half")
    catalog = ModelCatalog([store, bundled, None, tmp_path / "absent"])
    assert catalog.find("tiny", "1") == bundled / "tiny"
    assert catalog.find("tiny", "2") == store / "tiny" / "2"
    assert catalog.find("tiny", "3") is None
    named = {(manifest.name, manifest.version) for _, manifest in catalog.manifests()}
    assert named == {("tiny", "1"), ("tiny", "2"), ("other", "1")}
    assert [manifest.name for _, manifest in catalog.bundled()] == ["tiny"]


def test_a_directory_whose_name_lies_is_not_the_version_it_names(tmp_path: Path):
    """The manifest decides: version 1 in a directory "2" is not version 2."""
    write_model(tmp_path / "tiny" / "2", version="1")
    assert ModelCatalog([tmp_path]).find("tiny", "2") is None


def test_one_unreadable_manifest_hides_no_other_model(tmp_path: Path):
    """It is logged, and said where somebody asks for that model."""
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "broken", name="broken", context_tokens=0)
    catalog = ModelCatalog([tmp_path])
    assert [manifest.name for _, manifest in catalog.manifests()] == ["tiny"]
    with pytest.raises(PermanentError, match="write it anew"):
        catalog.find("broken", "1")


@pytest.mark.parametrize(
    "changes",
    [
        {"context_tokens": 0},
        {"name": "../escape"},
        {"version": "../1"},
        {"sha256": {"../model.bin": "0" * 64}},
        {"sha256": {"/etc/passwd": "0" * 64}},
        {"kind": "oracle"},
    ],
)
def test_a_manifest_that_is_none_or_points_elsewhere_is_refused(tmp_path: Path, changes):
    """The error names the file and what to do; nothing outside the directory is ever read."""
    write_model(tmp_path / "m", **changes)
    with pytest.raises(PermanentError, match="write it anew") as caught:
        read_manifest(tmp_path / "m")
    assert caught.value.code == "manifest_invalid"


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path):
    """A manifest that names one is as bad as one that names the place itself."""
    write_model(tmp_path / "m", sha256={"stolen": "0" * 64})
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "m" / "stolen").symlink_to(tmp_path / "secret")
    with pytest.raises(PermanentError, match="outside its directory"):
        read_manifest(tmp_path / "m")


@pytest.mark.parametrize(
    ("sha256", "code"),
    [
        ({"model.bin": "0" * 64}, "model_corrupt"),
        ({"absent.bin": "0" * 64}, "model_incomplete"),
    ],
)
def test_a_file_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path, sha256, code):
    """Changed or missing: the error names the file and what to do."""
    write_model(tmp_path / "m", sha256=sha256)
    with pytest.raises(PermanentError, match="restore it, or add the model again") as caught:
        verify(tmp_path / "m", read_manifest(tmp_path / "m"))
    assert caught.value.code == code


def test_a_shelf_loads_what_the_record_names_and_nothing_else(tmp_path: Path):
    """Another version is not here, and the message says what to do."""
    copy_of_reference(tmp_path / "penstock-small")
    shelf = shelf_of(tmp_path)
    assert shelf.has(record())
    assert not shelf.has(record(version="2"))
    resident = shelf.load(record())
    resident.engine.close()
    assert (resident.name, resident.version) == ("penstock-small", "1.0.0")
    assert resident.memory_bytes == shelf.memory_bytes(record())
    with pytest.raises(PermanentError, match="promote a version that is") as caught:
        shelf.load(record(version="2"))
    assert caught.value.code == "model_not_here"


def test_what_the_operator_says_of_the_memory_counts(tmp_path: Path):
    """In the budget before the load, and in the resident after it."""
    copy_of_reference(tmp_path / "penstock-small")
    limited = record(limits=ModelLimits(memory_bytes=12_345))
    assert shelf_of(tmp_path).memory_bytes(limited) == 12_345
    assert shelf_of(tmp_path).memory_bytes(record()) > 1_000_000


def test_limits_of_the_record_bound_the_layout(tmp_path: Path):
    """One slot, and no batch larger than the operator allows."""
    copy_of_reference(tmp_path / "penstock-small")
    resident = shelf_of(tmp_path).load(record(limits=ModelLimits(slots=1, max_batch=3)))
    resident.engine.close()
    assert (resident.layout.slots, resident.layout.max_batch) == (1, 3)


def damage(directory: Path) -> None:
    with (directory / "model.bin").open("r+b") as weights:
        weights.seek(1000)
        weights.write(b"damage")


def truncate(directory: Path) -> None:
    with (directory / "model.bin").open("r+b") as weights:
        weights.truncate(1000)


def lose_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()


def confuse_the_tokenizer(directory: Path) -> None:
    """Another model's: the same pieces under other numbers."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    a, b = [token for token in vocabulary if token.isalpha()][:2]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (damage, "model_corrupt"),
        (truncate, "model_corrupt"),
        (lose_the_tokenizer, "model_incomplete"),
        (confuse_the_tokenizer, "model_corrupt"),
    ],
)
def test_a_harmed_model_is_refused_before_it_is_loaded(tmp_path: Path, harm, code):
    """By its checksums: a sentence, not a crash."""
    harm(copy_of_reference(tmp_path / "penstock-small"))
    with pytest.raises(PermanentError) as caught:
        shelf_of(tmp_path).load(record())
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (truncate, "model_unloadable"),
        (lose_the_tokenizer, "model_incomplete"),
        (confuse_the_tokenizer, "tokenizer_mismatch"),
    ],
)
def test_a_harmed_model_without_checksums_is_refused_by_its_loading(tmp_path: Path, harm, code):
    """A manifest written by hand names no sums: what the file itself shows is enough."""
    harm(copy_of_reference(tmp_path / "penstock-small", sha256={}))
    with pytest.raises(PermanentError) as caught:
        shelf_of(tmp_path).load(record())
    assert caught.value.code == code


def test_an_echo_needs_no_files(tmp_path: Path):
    """It is always here and takes no memory; every other model is the shelf's."""
    shelf = ShelfWithEcho(shelf_of(tmp_path), tokens_per_s=0)
    echo = record("echo", "1", engine=Engine.ECHO)
    assert shelf.has(echo)
    assert (shelf.memory_bytes(echo), shelf.load(echo).name) == (0, "echo")
    assert not shelf.has(record())
