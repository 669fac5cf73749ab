"""Refusals of the operating system, in an operator's words."""

import errno
import os
from pathlib import Path

import pytest

from penstock.embedded.postgres_cluster import _initdb_failed
from penstock.errors import explain_os_error

HERE = Path("/data")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EACCES, "may not write"),
        (errno.EROFS, "may not write"),
        (errno.ENOTDIR, "not a directory"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_every_refusal_names_the_place_and_a_way_out(code, message):
    """The operator learns what is wrong and where, and which option helps."""
    explained = explain_os_error(OSError(code, os.strerror(code)), HERE)
    assert message in explained.message
    assert str(HERE) in explained.message
    assert "--data-dir" in explained.hint


def test_a_disk_that_fills_up_under_initdb_is_named_as_such():
    """PostgreSQL's own words about a full disk become the same sentence."""
    assert "is full" in _initdb_failed(HERE, "FATAL: no: No space left on device").message


def test_other_complaints_of_initdb_are_quoted_without_its_chatter():
    """Only the lines that matter reach the terminal."""
    failure = _initdb_failed(HERE, "creating directory ... ok\ninitdb: error: no such locale\n")
    assert "no such locale" in failure.message
    assert "creating directory" not in failure.message
