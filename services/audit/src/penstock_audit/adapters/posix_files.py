"""`LogFiles` on a POSIX file system."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from penstock_audit.errors import LogLockedError

_TEMPORARY: Final = ".tmp"


class PosixFiles:
    """Files below `root`. Nothing here holds a file open between two calls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """The whole file; None when there is none."""
        with suppress(FileNotFoundError):
            return (self.root / path).read_bytes()
        return None

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """The file for reading from its beginning; None when there is none."""
        with suppress(FileNotFoundError):
            return (self.root / path).open("rb")
        return None

    def write_at(self, path: str, offset: int, data: bytes) -> None:
        """Make `data` the file's end, from `offset` on, on the disk.

        Everything is written even if an earlier attempt has written it: after a failed fsync the
        kernel may have dropped pages that it calls clean. And it is written before the file is
        cut, for a checkpoint may cover it already whose rename, alone, could not be synced.
        """
        target = self.root / path
        created = not target.exists()
        if created:
            self._make_directory(target.parent)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if not data and os.fstat(handle).st_size == offset:
                return
            _write_all(handle, data, offset)
            os.ftruncate(handle, offset + len(data))
            os.fsync(handle)
        finally:
            os.close(handle)
        if created:
            _sync_directory(target.parent)

    def replace(self, path: str, data: bytes, *, durable: bool) -> None:
        """Swap the file for a new one, atomically."""
        target = self.root / path
        temporary = target.with_name(target.name + _TEMPORARY)
        self._make_directory(target.parent)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, data, 0)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(target)
        if durable:
            _sync_directory(target.parent)

    def remove(self, path: str) -> None:
        """Remove the file if it is there, and its directory if that is empty then."""
        target = self.root / path
        target.unlink(missing_ok=True)
        with suppress(OSError):
            target.parent.rmdir()

    def walk(self, path: str) -> Iterator[str]:
        """Every file below a directory."""
        for found in sorted((self.root / path).rglob("*")):
            if found.is_file():
                yield str(found.relative_to(self.root))

    def _make_directory(self, directory: Path) -> None:
        """Create it with its parents, each entry on the disk before anything relies on it."""
        if directory.is_dir():
            return
        if directory != self.root:
            self._make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(directory.parent)


class DirectoryLock:
    """One process owns a directory; the kernel lets go when that process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LogLockedError: another process, or another lock in this one, has it.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            msg = (
                f"Another audit process writes {self._path.parent}: stop it, "
                "or set PENSTOCK_STATE_DIR to a directory of its own."
            )
            raise LogLockedError(msg) from error
        self._handle = handle

    def release(self) -> None:
        """Let go."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _write_all(handle: int, data: bytes, offset: int) -> None:
    """A disk that fills up takes a part: go on until it says what is wrong."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
