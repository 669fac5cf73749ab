"""Announcing bundled models in a real `models` bucket."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from penstock_shared.contracts.models import ModelLimits, ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.kv import last_entry, purge, put
from penstock_shared.runtime.model_catalog import ModelCatalog, seed


def bundle(root: Path, version: str = "1") -> ModelCatalog:
    manifest = {
        "name": "tiny",
        "version": version,
        "parameters": 1,
        "context_tokens": 16,
        "price_input_microusd_per_1k": 1,
        "price_output_microusd_per_1k": 2,
    }
    (root / "tiny").mkdir(exist_ok=True)
    (root / "tiny" / "penstock.json").write_text(json.dumps(manifest))
    return ModelCatalog([root])


async def standing(broker: Broker) -> tuple[ModelRecord | None, int]:
    entry = await last_entry(broker, Bucket.MODELS, "tiny")
    assert entry is not None
    return (ModelRecord.model_validate_json(entry.data) if entry.data else None), entry.sequence


class StoppedClock(SystemClock):
    """It is always the same moment."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_record_says_since_when_there_is_its_model(broker, tmp_path):
    """The first announcement counts, whatever follows: clients sort by it."""
    await seed(broker, bundle(tmp_path), StoppedClock())
    await seed(broker, bundle(tmp_path, version="2"))
    record, _ = await standing(broker)
    assert record is not None
    assert (record.version, record.created_unix_s) == ("2", 1_767_225_600)


async def test_everybody_may_announce_and_nothing_is_written_twice(broker, tmp_path):
    """Eight instances that start at once leave one record at one revision."""
    catalog = bundle(tmp_path)
    await asyncio.gather(*(seed(broker, catalog) for _ in range(8)))
    record, revision = await standing(broker)
    assert record is not None
    assert (record.version, record.origin) == ("1", "bundled")
    await seed(broker, catalog)
    assert (await standing(broker))[1] == revision


async def test_a_removed_model_stays_removed(broker, tmp_path):
    """A restart does not bring back what an operator took away."""
    catalog = bundle(tmp_path)
    await seed(broker, catalog)
    await purge(broker, Bucket.MODELS, "tiny")
    await seed(broker, catalog)
    assert (await standing(broker))[0] is None


async def test_a_bundled_record_follows_its_directory(broker, tmp_path):
    """A new version is announced, and begins without the old one's crashes; limits stay."""
    await seed(broker, bundle(tmp_path))
    record, revision = await standing(broker)
    assert record is not None
    limits = ModelLimits(max_batch=4)
    changed = record.model_copy(update={"crashed_on": ("a", "b", "c"), "limits": limits})
    value = changed.model_dump_json().encode()
    await put(broker, Bucket.MODELS, "tiny", value, expected_revision=revision)
    await seed(broker, bundle(tmp_path))
    assert (await standing(broker))[0] == changed, "the same files stay quarantined"
    await seed(broker, bundle(tmp_path, version="2"))
    record, _ = await standing(broker)
    assert record is not None
    assert (record.version, record.crashed_on, record.limits) == ("2", (), limits)


async def test_what_an_operator_decided_is_left_alone(broker, tmp_path):
    """Origin "operator": the directory no longer says which version serves."""
    await seed(broker, bundle(tmp_path))
    record, revision = await standing(broker)
    assert record is not None
    own = record.model_copy(update={"version": "9", "origin": "operator"})
    value = own.model_dump_json().encode()
    await put(broker, Bucket.MODELS, "tiny", value, expected_revision=revision)
    await seed(broker, bundle(tmp_path, version="2"))
    assert (await standing(broker))[0] == own
