"""The model store's files: a version appears whole, or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import OperatorError, explain_os_error
from penstock_shared.contracts.models import ModelManifest
from penstock_shared.runtime.model_catalog import MANIFEST

_LOCK = ".lock"


class ModelStore:
    """`<root>/<name>/<version>/`, with `penstock.json` in each."""

    def __init__(self, root: Path) -> None:
        """Nothing is created before the first change."""
        self.root = root

    def version_dir(self, name: str, version: str) -> Path:
        """Where a version's files lie."""
        return self.root / name / version

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep every other command out, from the look at the registry to the end of the change.

        Raises:
            OperatorError: Another command is at it, or the store cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / _LOCK).open("a")
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OperatorError(
                    f"Another `penstock models` command is changing {self.root}.",
                    "Wait until it has ended, then run this one again.",
                ) from None
            yield

    @contextmanager
    def adding(self, name: str, version: str) -> Iterator[Path]:
        """Give an empty directory to fill, next to where the version will be.

        What a crash left there is thrown away by the next one. The directory goes when the context
        ends, unless it was put in place.
        """
        place = self._hidden(name, version)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def put_in_place(self, filled: Path, manifest: ModelManifest) -> Path:
        """Make a filled directory the version. After this returns, a power cut takes nothing back.

        The manifest is written last, and the directory gets its name when all of it is on disk.
        """
        text = manifest.model_dump_json(indent=2) + "\n"
        (filled / MANIFEST).write_text(text, encoding="utf-8")
        for path in filled.iterdir():
            _sync(path)
        _sync(filled)
        final = self.version_dir(manifest.name, manifest.version)
        if final.exists():  # left by a command that died before it could register the version
            shutil.rmtree(final)
        filled.rename(final)
        _sync(final.parent)
        _sync(self.root)
        return final

    def delete(self, name: str, version: str | None = None) -> None:
        """Delete a version's files, or all of a model's; what is not there is no error."""
        place = self.root / name if version is None else self.version_dir(name, version)
        if not place.is_dir():
            return
        # Renamed first: a version that is half deleted must not look like one.
        doomed = place.with_name(f".{place.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        place.rename(doomed)
        shutil.rmtree(doomed)

    def _hidden(self, name: str, version: str) -> Path:
        return self.root / name / f".{version}.partial"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
