"""The log on the disk: what a crash, a full disk and a lost tile leave of it."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path

import pytest
from tests.support.audit_log import (
    SIGNER,
    VKEY,
    FragileDisk,
    PowerCutError,
    event,
    events,
    grow,
    open_log,
)

from penstock_audit.adapters.posix_files import DirectoryLock, PosixFiles
from penstock_audit.adapters.tile_log import TileLog
from penstock_audit.domain.merkle import EMPTY_ROOT
from penstock_audit.errors import LogDamagedError, LogLockedError
from penstock_audit.verification import verify_log


def test_grows_and_resumes(tmp_path: Path) -> None:
    """Batches of any size, with restarts between them, give the tree of one long run (I5)."""
    rng = random.Random(1)
    straight = open_log(tmp_path / "straight")
    grow(straight, 5_000, batch=1_000)
    log = open_log(tmp_path / "restarted")
    assert log.checkpoint.root == EMPTY_ROOT
    while log.size < 5_000:
        log.append(events(log.size + 1, min(log.size + rng.randint(1, 400), 5_000)))
        if rng.random() < 0.3:
            log = open_log(tmp_path / "restarted")
        size = rng.randint(1, log.size)
        assert log.root_at(size) == straight.root_at(size)
    assert log.checkpoint.note == straight.checkpoint.note
    assert verify_log(tmp_path / "restarted", VKEY).tree_size == 5_000


def test_only_the_current_partial_tiles_are_kept(tmp_path: Path) -> None:
    """Files do not pile up: one partial tile per level, one partial bundle."""
    log = open_log(tmp_path)
    grow(log, 700, batch=3)
    partial = sorted(path for path in PosixFiles(tmp_path).walk("tile") if ".p/" in path)
    assert partial == ["tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/002.p/188"]


def test_cut_at_every_byte_of_the_last_batch(tmp_path: Path) -> None:
    """`kill -9` anywhere in the events of a batch: the next start goes on, without a fork (I5)."""
    before, after = tmp_path / "before", tmp_path / "after"
    log = open_log(before)
    grow(log, 254)
    shutil.copytree(before, after)
    expected = open_log(after)
    expected.append(events(255, 256))
    old_end = (before / "events/000").stat().st_size
    whole = (after / "events/000").read_bytes()
    for end in range(old_end, len(whole) + 1):
        (before / "events/000").write_bytes(whole[:end])
        restarted = open_log(before)
        assert restarted.size == 254
        assert (before / "events/000").stat().st_size == old_end
    restarted.append(events(255, 256))
    assert restarted.checkpoint.note == expected.checkpoint.note
    assert verify_log(before, VKEY).tree_size == 256


@pytest.mark.parametrize("size", [0, 3, 255, 256, 4_095, 4_096])
def test_power_cut_at_every_step(size: int) -> None:
    """Whatever was not synced is lost or kept at random: no signed entry is ever lost (I5).

    The checkpoint that was signed before the cut is either the old or the new one, and going on
    gives the same tree.
    """
    rng = random.Random(size)
    disk = FragileDisk(rng)
    log = TileLog(disk, SIGNER)
    log.open()
    grow(log, size, batch=1_000)
    before = dict(disk.contents)
    batch = events(size + 1, size + 300)
    log.append(batch)
    expected = log.checkpoint
    steps = 1
    while steps:
        disk = FragileDisk(rng, before)
        log = TileLog(disk, SIGNER)
        log.open()
        disk.power_fails_at = disk.steps + steps
        try:
            log.append(batch)
            steps = 0  # the batch needed fewer steps than that: every one of them was tried
        except PowerCutError:
            steps += 1
        restarted = TileLog(disk.after_power_cut(), SIGNER)
        restarted.open()
        assert restarted.size in {size, size + 300}
        restarted.append(events(restarted.size + 1, size + 400))
        assert restarted.root_at(size + 300) == expected.root


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_changes_nothing(code: int) -> None:
    """A batch that the disk refuses can be appended again once there is room."""
    rng = random.Random(5)
    disk = FragileDisk(rng)
    log = TileLog(disk, SIGNER)
    log.open()
    grow(log, 300)
    signed = log.checkpoint
    disk.failing = code
    for _ in range(3):
        with pytest.raises(OSError, match=errno.errorcode[code]):
            log.append(events(301, 600))
        assert log.checkpoint is signed
    disk.failing = None
    log.append(events(301, 600))
    undisturbed = TileLog(FragileDisk(rng), SIGNER)
    undisturbed.open()
    grow(undisturbed, 600)
    assert log.checkpoint == undisturbed.checkpoint


def test_what_cannot_be_removed_stays() -> None:
    """The batch is signed by then: a leftover file is no reason to append it again."""
    disk = FragileDisk(random.Random(6))
    log = TileLog(disk, SIGNER)
    log.open()
    disk.failing_removals = True
    grow(log, 600, batch=50)
    assert log.size == 600
    disk.failing_removals = False
    log.open()
    assert len([path for path in disk.walk("tile") if ".p/" in path]) == 3


def test_lost_tiles_are_made_again(tmp_path: Path) -> None:
    """Tiles follow from the events: without them the next start hashes everything anew."""
    log = open_log(tmp_path)
    grow(log, 9_000, batch=3_000)
    shutil.copytree(tmp_path / "tile", tmp_path / "kept")
    shutil.rmtree(tmp_path / "tile")
    open_log(tmp_path)
    assert verify_log(tmp_path, VKEY).tree_size == 9_000
    for path in PosixFiles(tmp_path).walk("kept"):
        made = tmp_path / path.replace("kept", "tile", 1)
        assert made.read_bytes() == (tmp_path / path).read_bytes()


def test_a_damaged_log_is_not_written_on(tmp_path: Path) -> None:
    """Altered events, a foreign or missing checkpoint: the writer refuses to start."""
    grow(open_log(tmp_path), 300)
    files = {path: (tmp_path / path).read_bytes() for path in ("checkpoint", "events/000")}
    altered = files["events/000"].replace(b'{"n":77}', b'{"n":78}')
    for path, data in (
        ("events/000", altered),
        ("events/000", files["events/000"][:-1]),
        ("checkpoint", files["checkpoint"].replace(b"300", b"299")),
        ("checkpoint", b"\xff"),
        ("checkpoint", None),
    ):
        target = tmp_path / path
        if data is None:
            target.unlink()
        else:
            target.write_bytes(data)
        tiles = {p: (tmp_path / p).read_bytes() for p in PosixFiles(tmp_path).walk("tile")}
        with pytest.raises(LogDamagedError):
            open_log(tmp_path)
        assert tiles == {p: (tmp_path / p).read_bytes() for p in PosixFiles(tmp_path).walk("tile")}
        target.write_bytes(files[path])
    assert open_log(tmp_path).size == 300


def test_events_must_follow_each_other(tmp_path: Path) -> None:
    """A hole or a repetition never reaches the log, whatever its caller does (I5)."""
    log = open_log(tmp_path)
    grow(log, 3)
    for wrong in ([event(5)], [event(3)], [event(4), event(4)]):
        with pytest.raises(ValueError, match="cannot stand"):
            log.append(wrong)
    assert log.size == 3


def test_large_and_odd_events(tmp_path: Path) -> None:
    """Events larger than any tlog-tiles entry, empty ones, and text outside ASCII."""
    log = open_log(tmp_path)
    log.append(
        [event(1, data=b"x" * 1_000_000), event(2, data=b""), event(3, event_type="é" * 999)]
    )
    assert verify_log(tmp_path, VKEY).tree_size == 3
    last = log.last_event()
    assert last is not None
    assert last.event_type() == "é" * 999
    assert len(last.entry()) < 65_536


def test_one_writer_per_directory(tmp_path: Path) -> None:
    """The second lock is refused; once the first is gone it is granted."""
    first, second = DirectoryLock(tmp_path / "lock"), DirectoryLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(LogLockedError):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
