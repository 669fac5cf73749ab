"""PostgreSQL refuses root; the stack runs for root and for everybody else."""

import os
import shutil
import tempfile
from pathlib import Path

import asyncpg
import pytest

from penstock.embedded import postgres_home
from penstock.embedded.binaries import postgres_install
from penstock.embedded.identities import (
    DroppedIdentity,
    MaskedIdentity,
    choose_identity,
    identity_works,
    needs_other_identity,
)
from penstock.embedded.postgres import PostgresServer
from penstock.ports import choose_ports
from penstock.supervision.spec import Identity
from penstock.supervision.supervisor import Supervisor

NOBODY = 65534
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def open_place():
    """Give a directory that other users may pass through; pytest's own are closed to them."""
    place = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def as_nobody() -> tuple[str, ...]:
    """Build the command prefix that turns root into an ordinary user.

    The interpreter may lie in root's home: one capability, to read it, goes along. It gives no
    right to write, to change user or to signal others.
    """
    if not AS_ROOT:
        return ()
    reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search")
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return (
        "setpriv",
        *user,
        *reading,
        "--bounding-set=-all,+dac_read_search",
        "--securebits=+no_setuid_fixup",
    )


def test_it_runs_as_an_ordinary_user(start_stack, open_place):
    """The same stack, with nothing of root's."""
    if AS_ROOT:
        os.chown(open_place, NOBODY, NOBODY)
    env = {"HOME": str(open_place), "PENSTOCK_DATA_DIR": ""}
    name = open_place / "data"
    stack = start_stack(name, env=env, prefix=as_nobody())
    ready = stack.ready()
    owner = Path(f"/proc/{ready['pids']['postgres']}").stat().st_uid
    assert owner == (NOBODY if AS_ROOT else os.geteuid())
    assert stack.terminate() == 0


@pytest.mark.parametrize("closed_install", [False, True], ids=["readable", "closed"])
async def test_where_namespaces_are_forbidden_root_hands_over_to_nobody(
    open_place, monkeypatch, closed_install
):
    """In a container without user namespaces PostgreSQL runs as another user for good.

    Its data moves out of a directory that user cannot enter, and so does a closed installation.
    """
    if not AS_ROOT:
        assert not needs_other_identity()  # nobody to hand over from: the plain case holds
        return
    monkeypatch.setattr(postgres_home, "_OPEN_PLACE", open_place / "var")
    install = postgres_install()
    if closed_install:
        install = closed_copy(install, open_place / "closed")
        monkeypatch.setattr("penstock.embedded.postgres.postgres_install", lambda: install)
    closed_home = open_place / "root"
    closed_home.mkdir(mode=0o700)
    await run_once(closed_home, DroppedIdentity(NOBODY, NOBODY))
    clusters = list((open_place / "var").glob("postgres-*/data"))
    assert [cluster.stat().st_uid for cluster in clusters] == [NOBODY]


async def test_root_is_masked_where_namespaces_work(open_place):
    """With user namespaces the files stay root's, wherever they lie."""
    if not needs_other_identity():
        assert choose_identity() is None
        return
    identity = choose_identity()
    if isinstance(identity, DroppedIdentity):
        assert not identity_works(MaskedIdentity(NOBODY, NOBODY))
        return
    closed = open_place / "root"
    closed.mkdir(mode=0o700)
    await run_once(closed, identity)
    assert (closed / "postgres" / "data").stat().st_uid == os.geteuid()


def closed_copy(install: Path, place: Path) -> Path:
    """Copy the installation into a directory that only its owner may enter."""
    package = place / install.parent.name
    shutil.copytree(install, package / install.name, symlinks=True)
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    shutil.copytree(libraries, place / libraries.name)
    place.chmod(0o700)
    return package / install.name


async def run_once(home: Path, identity: Identity | None) -> None:
    """Start PostgreSQL twice in this home under the identity, and write and read a row."""
    server = PostgresServer(
        directory=home / "postgres",
        port=choose_ports(["postgres"], {})["postgres"],
        superuser_password="superpw",
        password="rolepw",
        identity=identity,
    )
    for expected in (1, 2):
        supervisor = Supervisor([server.spec(home / "postgres.log", os.environ)])
        supervisor.start()
        try:
            await supervisor.until_ready()
            connection = await asyncpg.connect(server.dsn)
            await connection.execute("create table if not exists t (n int)")
            await connection.execute("insert into t values (1)")
            assert await connection.fetchval("select count(*) from t") == expected
            await connection.close()
        finally:
            await supervisor.stop()
