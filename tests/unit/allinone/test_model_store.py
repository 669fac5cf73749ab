"""The store's files: whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import OperatorError
from penstock.registry.store import ModelStore
from penstock_shared.contracts.models import ModelManifest
from penstock_shared.runtime.model_catalog import ModelCatalog, sha256_of, verify

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
    assert catalog.manifests() == []
    place = add(ModelStore(tmp_path), b"other")
    ((found, manifest),) = catalog.manifests()
    assert found == place
    verify(place, manifest)


def test_a_failure_leaves_nothing_behind(tmp_path):
    """An error while filling throws the copy away."""
    store = ModelStore(tmp_path)
    with pytest.raises(OSError, match="absent"), store.adding("tiny", "1") as place:
        shutil.copyfile(tmp_path / "absent", place / "model.bin")
    assert list((tmp_path / "tiny").iterdir()) == []


def test_two_commands_do_not_write_one_store(tmp_path):
    """The second says so at once instead of mixing its files with the first one's."""
    store = ModelStore(tmp_path)
    with (
        store.adding("tiny", "1"),
        pytest.raises(OperatorError, match="Another"),
        ModelStore(tmp_path).adding("tiny", "2"),
    ):
        pass


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
