"""Files that only their owner may read, replaced atomically."""

import os
import tempfile
from pathlib import Path

PRIVATE_DIRECTORY = 0o700


def write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace `path` by `text`, mode 0600, so that a reader sees the old or the new whole file.

    A durable one reaches the disk before its name does: after a power cut it is never empty.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> Path:
    """Create `path` and its parents if need be; a directory made here is closed to others."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    return path
