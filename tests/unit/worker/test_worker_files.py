"""What a worker loads from disk, and what it says of files that were harmed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import Engine, ModelLimits, ModelRecord
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.model_catalog import ModelCatalog
from penstock_worker.adapters.ctranslate2_devices import choose_target
from penstock_worker.adapters.layout_store import LayoutStore
from penstock_worker.adapters.machine import Machine
from penstock_worker.adapters.model_shelf import DiskShelf, ShelfWithEcho
from penstock_worker.adapters.tuner import Tuner

_REFERENCE = Path(__file__).parents[3] / "models" / "penstock-small"


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
