"""The store's files: whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import OperatorError
from penstock.registry.addition import Wish
from penstock.registry.desk import ModelDesk
from penstock.registry.store import ModelStore
from penstock.stack_locator import Connections
from penstock_shared.contracts.models import ModelManifest
from penstock_shared.runtime.model_catalog import ModelCatalog, read_manifest, sha256_of, verify

MANIFEST = ModelManifest(
    name="tiny",
    version="1",
    parameters=1,
    context_tokens=16,
    price_input_microusd_per_1k=0,
    price_output_microusd_per_1k=0,
)
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from penstock.registry import store
from tests.unit.allinone.test_model_store import MANIFEST, add

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

step = sys.argv[2]
if step == "filling":
    Path.write_bytes = die
elif step == "manifest":
    Path.write_text = die
elif step == "sync":
    store._sync = die
elif step == "rename":
    Path.rename = die
add(store.ModelStore(Path(sys.argv[1])))
"""


def add(store: ModelStore, content: bytes = b"weights") -> Path:
    with store.adding("tiny", "1") as place:
        (place / "model.bin").write_bytes(content)
        hashes = {"model.bin": sha256_of(place / "model.bin")}
        return store.put_in_place(place, MANIFEST.model_copy(update={"sha256": hashes}))


@pytest.mark.parametrize("step", ["filling", "manifest", "sync", "rename"])
def test_killed_at_any_step_it_leaves_no_version_and_can_be_run_again(tmp_path, step):
    """`kill -9` in the middle: no catalog finds anything, and the next command succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(tmp_path), step],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    catalog = ModelCatalog([tmp_path])
    assert catalog.find("tiny", "1") is None
    place = add(ModelStore(tmp_path), b"other")
    assert catalog.find("tiny", "1") == place
    verify(place, read_manifest(place))


def test_a_failure_leaves_nothing_behind(tmp_path):
    """An error while filling throws the copy away."""
    store = ModelStore(tmp_path)
    with pytest.raises(OSError, match="absent"), store.adding("tiny", "1") as place:
        shutil.copyfile(tmp_path / "absent", place / "model.bin")
    assert list((tmp_path / "tiny").iterdir()) == []


async def test_two_commands_do_not_change_one_store(tmp_path):
    """The second says so at once: it would put its files in the first one's place, or delete them.

    It does not even ask the registry, which would say what is no longer true when it has the lock.
    """
    nowhere = Connections(
        nats_url="nats://127.0.0.1:1",
        postgres_dsn=None,
        redis_url=None,
        http_url=None,
        admin_key=None,
        audit_dir=None,
        root_key_file=None,
        metrics={},
        model_store=tmp_path / "models",
    )
    desk = ModelDesk(nowhere, {})
    (tmp_path / "model.bin").touch()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    wish = Wish("tiny", "1", None, None, 0, 0, "int8", None)
    with ModelStore(tmp_path / "models").changing():
        with pytest.raises(OperatorError, match="Another"):
            await desk.add(tmp_path, wish, None, lambda *_: None)
        with pytest.raises(OperatorError, match="Another"):
            await desk.remove("tiny", None)


def test_deleting_a_version_spares_the_others(tmp_path):
    """And deleting what is not there is no error."""
    store = ModelStore(tmp_path)
    place = add(store)
    store.delete("tiny", "2")
    assert place.is_dir()
    store.delete("tiny", "1")
    assert not place.exists()
    store.delete("tiny")
    assert not (tmp_path / "tiny").exists()
