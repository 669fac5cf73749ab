"""Verification finds what was done to a log, and names the first bad entry."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.audit_log import SIGNER, VKEY, events, grow, open_log

from penstock_audit.adapters.log_reader import read_segment
from penstock_audit.adapters.posix_files import PosixFiles
from penstock_audit.adapters.tile_log import TileLog
from penstock_audit.domain.checkpoint import Checkpoint
from penstock_audit.domain.notes import Signer
from penstock_audit.errors import VerificationError
from penstock_audit.verification import read_checkpoint, verify_log, witnessed_roots

SIZE = 4_500
SEED = 20261120


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two segments, left alone."""
    directory = tmp_path_factory.mktemp("audit") / "log"
    grow(open_log(directory), SIZE, batch=1_500)
    return directory


@pytest.fixture
def log(pristine: Path, tmp_path: Path) -> Path:
    """A copy to do things to."""
    return Path(shutil.copytree(pristine, tmp_path / "log"))


def records(path: Path, segment: int) -> list[bytes]:
    """The raw records of a segment file."""
    return [stored.event.record() for stored in read_segment(PosixFiles(path), segment)]


def rewrite(path: Path, segment: int, changed: list[bytes]) -> None:
    (path / f"events/{segment:03d}").write_bytes(b"".join(changed))


def _flip(path: Path, rng: random.Random) -> str:
    names = ["checkpoint", *PosixFiles(path).walk("events"), *PosixFiles(path).walk("tile")]
    target = path / rng.choice(names)
    data = bytearray(target.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    target.write_bytes(data)
    return f"bit of byte {at} of {target.name}"


def _drop(path: Path, rng: random.Random) -> str:
    segment = rng.randrange(2)
    kept = records(path, segment)
    at = rng.randrange(len(kept))
    del kept[at]
    rewrite(path, segment, kept)
    return f"dropped record {at} of segment {segment}"


def _duplicate(path: Path, rng: random.Random) -> str:
    segment = rng.randrange(2)
    kept = records(path, segment)
    at = rng.randrange(len(kept))
    kept.insert(at, kept[at])
    rewrite(path, segment, kept)
    return f"duplicated record {at} of segment {segment}"


def _swap(path: Path, rng: random.Random) -> str:
    segment = rng.randrange(2)
    kept = records(path, segment)
    one, two = rng.sample(range(len(kept)), 2)
    kept[one], kept[two] = kept[two], kept[one]
    rewrite(path, segment, kept)
    return f"swapped records {one} and {two} of segment {segment}"


def _truncate(path: Path, rng: random.Random) -> str:
    names = ["checkpoint", *PosixFiles(path).walk("events"), *PosixFiles(path).walk("tile")]
    target = path / rng.choice(names)
    data = target.read_bytes()
    end = rng.randrange(len(data))
    target.write_bytes(data[:end])
    return f"cut {target.name} at {end}"


def _older_copy(path: Path, rng: random.Random) -> str:
    note = (path / "checkpoint").read_bytes()
    shutil.rmtree(path)
    size = rng.randrange(SIZE)
    grow(open_log(path), size, batch=1_500)
    (path / "checkpoint").write_bytes(note)
    return f"older copy of {size} entries under the newer checkpoint"


def _older_checkpoint(path: Path, rng: random.Random) -> str:
    older = open_log(path.with_name("older"))
    grow(older, rng.randrange(1, SIZE - 1_500), batch=1_500)
    shutil.copy(path.with_name("older") / "checkpoint", path / "checkpoint")
    shutil.rmtree(path.with_name("older"))
    return f"newer files under the checkpoint of {older.size}"


TAMPERINGS: list[tuple[Callable[[Path, random.Random], str], int]] = [
    (_flip, 80),
    (_drop, 25),
    (_duplicate, 25),
    (_swap, 25),
    (_truncate, 25),
    (_older_copy, 10),
    (_older_checkpoint, 10),
]


@pytest.mark.parametrize(
    ("tamper", "times"), TAMPERINGS, ids=lambda v: getattr(v, "__name__", None)
)
def test_two_hundred_tamperings_are_found(
    log: Path, pristine: Path, tamper: Callable[[Path, random.Random], str], times: int
) -> None:
    """Bit flips, drops, duplicates, swaps, cuts, mixed copies: each one is found (I5)."""
    rng = random.Random(SEED)
    for turn in range(times):
        done = tamper(log, rng)
        print(f"seed {SEED}, turn {turn}: {done}")
        with pytest.raises(VerificationError):
            verify_log(log, VKEY)
        shutil.rmtree(log)
        shutil.copytree(pristine, log)


def test_an_untouched_log_verifies(log: Path) -> None:
    """And says what it is; the progress ends at the number of entries in full bundles."""
    seen: list[tuple[int, int]] = []
    verified = verify_log(log, VKEY, progress=lambda done, total: seen.append((done, total)))
    assert (verified.tree_size, verified.last_seq, verified.unsigned_events) == (SIZE, SIZE, 0)
    assert str(verified.verifier) == VKEY
    assert seen[-1] == (SIZE - SIZE % 256, SIZE)
    assert read_checkpoint(log, VKEY) == verified.checkpoint


@pytest.mark.parametrize("index", [0, 255, 256, 4_095, 4_096, SIZE - 1])
def test_the_first_bad_entry_is_named(log: Path, index: int) -> None:
    """An altered event is found at its index, also when later ones are damaged beyond reading."""
    segment, at = divmod(index, 4_096)
    kept = records(log, segment)
    kept[at] = kept[at].replace(b'{"n":', b'{"m":')
    if at + 1 < len(kept):
        kept[at + 1] = b"\x00\x00\x00\x01" + kept[at + 1][4:]
    rewrite(log, segment, kept)
    with pytest.raises(VerificationError, match="stored event was altered") as caught:
        verify_log(log, VKEY)
    assert caught.value.index == index


def test_the_blame_lies_with_the_one_that_contradicts_two(log: Path) -> None:
    """Event, entry and hash of entry 300: whichever was altered is named."""
    bundle, tile = log / "tile/entries/001", log / "tile/0/001"
    kept = {path: path.read_bytes() for path in (bundle, tile)}
    bundle.write_bytes(kept[bundle].replace(b'"seq":301,', b'"seq":302,'))
    with pytest.raises(VerificationError, match="entry in the bundle") as caught:
        verify_log(log, VKEY)
    assert caught.value.index == 300
    bundle.write_bytes(kept[bundle])
    altered = bytearray(kept[tile])
    altered[44 * 32] ^= 1
    tile.write_bytes(altered)
    with pytest.raises(VerificationError, match="hash in the tile") as caught:
        verify_log(log, VKEY)
    assert caught.value.index == 300


def test_a_consistent_forgery_needs_the_key(log: Path, tmp_path: Path) -> None:
    """Who rewrites events, entries and hashes alike still cannot sign the root."""
    forged = TileLog(PosixFiles(tmp_path / "forged"), Signer("penstock.test/audit", bytes(32)))
    forged.open()
    grow(forged, SIZE, batch=1_500)
    with pytest.raises(VerificationError, match="no signature by"):
        verify_log(tmp_path / "forged", VKEY)
    honest = (log / "checkpoint").read_bytes()
    changed = events(1, SIZE)
    changed[1_000] = changed[999].__class__(
        **{
            field: getattr(changed[1_000], field)
            for field in ("seq", "time_us", "subject", "headers")
        },
        data=b"forged",
    )
    other = TileLog(PosixFiles(tmp_path / "other"), SIGNER)
    other.open()
    other.append(changed)
    (tmp_path / "other/checkpoint").write_bytes(honest)
    with pytest.raises(VerificationError, match="all three were rewritten"):
        verify_log(tmp_path / "other", VKEY)


def test_witnessed_roots(log: Path) -> None:
    """A checkpoint kept elsewhere shows a rollback, and a rewritten past."""
    older = open_log(log.with_name("older"))
    grow(older, 1_000)
    assert verify_log(log, VKEY, witnessed={1_000: older.checkpoint.root}).tree_size == SIZE
    with pytest.raises(VerificationError, match="another root than was witnessed"):
        verify_log(log, VKEY, witnessed={1_001: older.checkpoint.root})
    with pytest.raises(VerificationError, match="rolled back"):
        verify_log(log.with_name("older"), VKEY, witnessed={SIZE: older.checkpoint.root})


def test_kept_checkpoints(log: Path) -> None:
    """Signed notes become witnessed roots; foreign ones and contradictions are refused."""
    older = open_log(log.with_name("older"))
    grow(older, 500)
    notes = [older.checkpoint.note, (log / "checkpoint").read_text()]
    assert verify_log(log, VKEY, witnessed=witnessed_roots(notes, VKEY)).tree_size == SIZE
    with pytest.raises(VerificationError, match="no signature by"):
        witnessed_roots([Signer("other.test/log", bytes(32)).sign("x\n")], VKEY)
    second = Checkpoint.sign(SIGNER, 500, bytes(32))
    with pytest.raises(VerificationError, match="different roots"):
        witnessed_roots([older.checkpoint.note, second.note], VKEY)


def test_an_unfinished_batch_is_no_tampering(log: Path) -> None:
    """A crash leaves events that are not signed yet: counted, and not an error."""
    grow(open_log(log.with_name("longer")), SIZE + 10, batch=1_500)
    whole = (log.with_name("longer") / "events/001").read_bytes()
    (log / "events/001").write_bytes(whole[:-5])
    assert verify_log(log, VKEY).unsigned_events == 9


def test_nothing_there(tmp_path: Path) -> None:
    """No log, no key, an empty log."""
    with pytest.raises(VerificationError, match="no log"):
        verify_log(tmp_path, VKEY)
    with pytest.raises(VerificationError, match="verifier key"):
        verify_log(tmp_path, "what?")
    open_log(tmp_path)
    assert verify_log(tmp_path, VKEY).tree_size == 0
