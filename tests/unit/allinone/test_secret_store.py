"""Passwords and keys: how they look, where they lie, and that they do not show."""

import base64
import stat

import nkeys
import pytest

from penstock.data_dir import DataDir
from penstock.errors import OperatorError
from penstock.secret_store import (
    ensure_root_key,
    load_or_create_secrets,
    new_account_seed,
    new_password,
    public_account_key,
    save_secrets,
)


@pytest.fixture
def data_dir(tmp_path):
    place = DataDir(tmp_path / "data")
    place.create()
    return place


def test_passwords_begin_with_a_letter_and_need_no_escaping():
    """nats-server reads a numeric password as a number; URLs must not need quoting."""
    passwords = {new_password() for _ in range(200)}
    assert len(passwords) == 200
    assert all(text[0].isalpha() and text.isalnum() and text.isascii() for text in passwords)


def test_the_account_seed_signs_for_its_public_key():
    """The issuer in the bus's configuration belongs to the seed that realtime signs with."""
    seed = new_account_seed()
    public = public_account_key(seed)
    assert (seed[:2], public[0]) == ("SA", "A")
    pair = nkeys.from_seed(bytearray(seed, "ascii"))
    assert pair.verify(b"claim", pair.sign(b"claim"))


def test_secrets_survive_a_restart_and_are_closed_to_others(data_dir):
    """A second start finds the same passwords in a file that only the owner may read."""
    first = load_or_create_secrets(data_dir)
    save_secrets(data_dir, first.with_demo_api_key("psk_x"))
    second = load_or_create_secrets(data_dir)
    assert second.nats_password.get_secret_value() == first.nats_password.get_secret_value()
    assert second.demo_api_key is not None
    assert second.demo_api_key.get_secret_value() == "psk_x"
    assert stat.S_IMODE(data_dir.secrets_file.stat().st_mode) == 0o600


def test_printing_secrets_shows_none(data_dir):
    """I8: neither repr nor str of the secrets carries a value into a log."""
    stored = load_or_create_secrets(data_dir)
    values = [stored.nats_password, stored.auth_callout_seed, stored.admin_key]
    shown = f"{stored!r} {stored}"
    assert all(value.get_secret_value() not in shown for value in values)


def test_a_damaged_file_is_never_replaced(data_dir):
    """Overwriting it would lock the operator out of the servers' data."""
    data_dir.secrets_file.write_text('{"nats_password": 7, "stray": 1}')
    with pytest.raises(OperatorError, match="damaged"):
        load_or_create_secrets(data_dir)
    assert "stray" in data_dir.secrets_file.read_text()


def test_the_root_key_is_made_once(data_dir):
    """I10: 32 random bytes in base64, mode 0600, kept for ever."""
    path = ensure_root_key(data_dir.root_key_file)
    key = path.read_text()
    assert len(base64.b64decode(key)) == 32
    assert ensure_root_key(path).read_text() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
