"""`penstock models` with a real registry, run as an operator runs it; converted models."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock_shared.contracts import subjects
from penstock_shared.contracts.models import (
    ModelRecord,
    ModelState,
    ResidentModel,
    WorkerModels,
)
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.kv import last_entry, put

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def converted(tmp_path):
    """A model as CTranslate2's converter leaves it, with its tokenizer: no manifest."""
    place = tmp_path / "Converted Model"
    skip = shutil.ignore_patterns("penstock.json", "*.md", "evaluation.json")
    shutil.copytree(MODELS / "penstock-small", place, ignore=skip)
    return place


@pytest.fixture
def penstock(nats_url, broker, tmp_path):
    """Run `penstock models …`; parsed output, or what went to standard error."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    env = {
        **kept,
        "PENSTOCK_NATS_URL": nats_url,
        "PENSTOCK_MODEL_STORE": str(tmp_path / "store"),
        "PENSTOCK_MODELS_DIR": str(MODELS),
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock", "models", *arguments]
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=90
        )

    async def run(*arguments: str, refused: bool = False) -> Any:
        done = await asyncio.to_thread(call, *arguments)
        if refused:
            assert done.returncode == 1, done.stdout
            assert "Traceback" not in done.stderr
            return done.stderr
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


async def record(broker: Broker, name: str) -> ModelRecord | None:
    entry = await last_entry(broker, Bucket.MODELS, name)
    return ModelRecord.model_validate_json(entry.data) if entry and entry.data else None


async def test_a_models_life(penstock, broker, converted, tmp_path):
    """Added twice, promoted, a version removed, all removed: files follow the record."""
    store = tmp_path / "store" / "converted-model"
    added = await penstock("add", str(converted), "--price-output", "7", "--queue", "9", "--json")
    assert added["version"] == "1"
    standing = await record(broker, "converted-model")
    assert standing is not None
    assert (standing.version, standing.origin, standing.limits.queue) == ("1", "operator", 9)
    assert (standing.context_tokens, standing.price.output_microusd_per_1k) == (1024, 7)
    assert standing.parameters > 1_000_000
    out = await penstock("add", str(converted), "--context-tokens", "256")
    assert "penstock models promote converted-model 2" in out
    standing = await record(broker, "converted-model")
    assert standing is not None
    assert (standing.version, standing.versions) == ("1", ("1", "2"))
    assert "promote" in await penstock("remove", "converted-model", "1", refused=True)
    await penstock("promote", "converted-model", "2")
    standing = await record(broker, "converted-model")
    assert standing is not None
    assert (standing.version, standing.context_tokens, standing.limits.queue) == ("2", 256, 9)
    await penstock("remove", "converted-model", "1")
    assert sorted(path.name for path in store.iterdir()) == ["2"]
    await penstock("remove", "converted-model")
    assert not store.exists()
    assert await record(broker, "converted-model") is None
    again = await penstock("add", str(converted), "--json")
    assert again["model"]["versions"] == ["1"]


async def test_promotion_lifts_the_quarantine(penstock, broker, converted):
    """What killed its process three times is shown as such, and runs again once promoted."""
    await penstock("add", str(converted), "--name", "deadly")
    standing = await record(broker, "deadly")
    assert standing is not None
    broken = standing.model_copy(update={"crashed_on": ("a", "b", "c")})
    await put(broker, Bucket.MODELS, "deadly", broken.model_dump_json().encode())
    assert "quarantined" in await penstock("list")
    await penstock("promote", "deadly", "1")
    standing = await record(broker, "deadly")
    assert standing is not None
    assert not standing.quarantined


async def test_the_list_gathers_what_every_worker_says(penstock, broker, converted):
    """Each worker's answer is shown, with why a model failed there."""
    await penstock("add", str(converted), "--name", "tiny")
    for instance in ("worker-1", "worker-2"):
        failed = ResidentModel(
            name="tiny", version="1", state=ModelState.FAILED, why=f"disk of {instance}"
        )
        said = WorkerModels(instance=instance, memory_budget_bytes=1, models=(failed,))

        async def answer(msg: Any, said: WorkerModels = said) -> None:
            await msg.respond(said.model_dump_json().encode())

        await broker.client.subscribe(subjects.models_state(), cb=answer)
    await broker.flush()
    shown = await penstock("list", "--json")
    assert [worker["instance"] for worker in shown["workers"]] == ["worker-1", "worker-2"]
    assert [model["name"] for model in shown["models"]] == ["tiny"]
    assert "disk of worker-2" in await penstock("list")


@pytest.mark.parametrize(
    ("spoil", "options", "reason"),
    [
        (lambda d: (d / "tokenizer.json").unlink(), (), "no tokenizer.json"),
        (lambda d: os.truncate(d / "model.bin", 500_000), (), "is truncated"),
        (lambda d: os.truncate(d / "model.bin", _size(d) - 1), (), "cannot be served"),
        (lambda d: os.truncate(d / "model.bin", 3), (), "does not serve"),
        (lambda d: _shift(d / "vocabulary.json"), (), "does not belong to its model"),
        (lambda d: _without(d / "tokenizer_config.json", "chat_template"), (), "chat template"),
        (lambda d: _without(d / "tokenizer_config.json", "model_max_length"), (), "context"),
        (lambda d: (d / "config.json").unlink(), (), "config.json is missing"),
        (lambda _: None, ("--kind", "embedding"), "of the kind text"),
        (lambda _: None, ("--context-tokens", "4096"), "contexts of 1024"),
        (lambda _: None, ("--name", "Not A Name"), "no valid name"),
        (lambda _: None, ("--version", "../1"), "no valid version"),
        (lambda _: None, ("--slots", "0"), "no valid slots"),
        (shutil.rmtree, (), "is not a directory"),
    ],
)
async def test_what_cannot_work_is_refused_with_the_reason(
    penstock, broker, converted, tmp_path, spoil, options, reason
):
    """Nothing is registered and no file is left; the next step is named."""
    spoil(converted)
    said = await penstock("add", str(converted), "--name", "bad", *options, refused=True)
    assert reason in " ".join(said.split())
    assert await record(broker, "bad") is None
    assert not list((tmp_path / "store").glob("*/*/penstock.json"))
    assert not list((tmp_path / "store").glob("*/.*"))


async def test_a_checkpoint_that_nobody_can_convert_is_refused_before_conversion(
    penstock, converted
):
    """An architecture that the workers do not know, and one without weights."""
    (converted / "model.bin").unlink()
    (converted / "config.json").write_text(json.dumps({"model_type": "diffusion"}))
    assert "'diffusion' is not known" in await penstock("add", str(converted), refused=True)
    (converted / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "no weights" in await penstock("add", str(converted), refused=True)


async def test_without_the_converter_the_command_says_what_to_install(penstock, converted):
    """Torch is no dependency: the sentence names the packages and the variable."""
    (converted / "model.bin").rename(converted / "model.safetensors")
    config = {"model_type": "llama", "max_position_embeddings": 64}
    (converted / "config.json").write_text(json.dumps(config))
    said = await penstock("add", str(converted), refused=True)
    assert "pip install" in said
    assert "PENSTOCK_CONVERTER_PYTHON" in said


async def test_a_version_that_a_killed_command_left_is_added_again(
    penstock, broker, converted, tmp_path
):
    """Files in place without a record: the same command replaces them and registers."""
    await penstock("add", str(converted), "--name", "tiny")
    standing = await last_entry(broker, Bucket.MODELS, "tiny")
    assert standing is not None
    left = tmp_path / "store" / "tiny" / "2"
    shutil.copytree(tmp_path / "store" / "tiny" / "1", left)
    (left / "model.bin").write_bytes(b"old")
    added = await penstock("add", str(converted), "--name", "tiny", "--json")
    assert added["version"] == "2"
    assert (left / "model.bin").read_bytes() == (converted / "model.bin").read_bytes()
    said = await penstock("add", str(converted), "--name", "tiny", "--version", "2", refused=True)
    assert "already" in said


def _size(directory: Path) -> int:
    return (directory / "model.bin").stat().st_size


def _shift(vocabulary: Path) -> None:
    tokens = json.loads(vocabulary.read_text())
    vocabulary.write_text(json.dumps([*tokens[1:], tokens[0]]))


def _without(path: Path, name: str) -> None:
    config = json.loads(path.read_text())
    del config[name]
    path.write_text(json.dumps(config))
