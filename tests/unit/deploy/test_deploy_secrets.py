"""deploy/docker/make_secrets.py: everything that the Compose file asks for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.support.deploy import (
    DOCKER,
    REPOSITORY,
    MissingVariableError,
    compose,
    interpolated,
    read_env_file,
)
from tests.support.processes import run_python

from penstock_shared.runtime.keyring import read_root_key


def make(directory: Path) -> str:
    done = run_python(str(DOCKER / "make_secrets.py"), str(directory))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def made(tmp_path):
    make(tmp_path)
    return tmp_path


def root_key(directory: Path) -> Path:
    path: Path = directory / compose()["secrets"]["root_key"]["file"]
    return path


def test_the_compose_file_finds_every_variable_it_asks_for(made):
    """Two commands and the stack is up: no variable is left to invent."""
    variables = read_env_file(made / ".env")
    interpolated(compose(), variables)
    for name in variables:
        without = {other: value for other, value in variables.items() if other != name}
        with pytest.raises(MissingVariableError, match=name):
            interpolated(compose(), without)


def test_the_files_are_closed_to_others(made):
    """I8: `.env` by its mode; the root key, which the containers' user reads, by its folder's."""
    key = root_key(made)
    assert stat.S_IMODE((made / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o444
    assert len(read_root_key(key)) == 32


def test_a_second_run_changes_nothing(made):
    """I10: a root key that was replaced would erase everything that it sealed."""
    before = (made / ".env").read_bytes(), root_key(made).read_bytes()
    assert make(made) == ""
    assert ((made / ".env").read_bytes(), root_key(made).read_bytes()) == before


def test_a_run_that_died_half_way_is_finished(made):
    """The root key stays; only what is missing is made."""
    key = root_key(made).read_bytes()
    (made / ".env").unlink()
    assert ".env" in make(made)
    assert root_key(made).read_bytes() == key


def test_every_stack_has_secrets_of_its_own(made, tmp_path_factory):
    """No default that two installations would share, and no password that is used twice."""
    other = tmp_path_factory.mktemp("other")
    make(other)
    ours, theirs = read_env_file(made / ".env"), read_env_file(other / ".env")
    assert not set(ours.values()) & set(theirs.values())
    assert len(set(ours.values())) == len(ours)


def test_git_keeps_its_hands_off_them():
    """I8: what the script writes into the repository is not committed by accident."""
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/.env", "/deploy/docker/secrets/"} <= set(ignored)
