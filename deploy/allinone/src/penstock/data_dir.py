"""The data directory: where everything lies, and whose it is while a stack runs."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstock.errors import OperatorError, explain_os_error
from penstock.private_file import make_private_directory

DATA_DIR_VARIABLE = "PENSTOCK_DATA_DIR"
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 0.02


def resolve_data_dir(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Choose the directory: the option, then `PENSTOCK_DATA_DIR`, then the user's data home."""
    if option is not None:
        return option.expanduser().absolute()
    if named := environ.get(DATA_DIR_VARIABLE):
        return Path(named).expanduser().absolute()
    home = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return (Path(home) / "penstock").expanduser().absolute()


@dataclass(frozen=True, slots=True)
class DataDir:
    """The layout of one stack's data directory."""

    root: Path

    @property
    def lock_file(self) -> Path:
        """Held with flock by the supervisor for as long as it runs."""
        return self.root / "lock"

    @property
    def secrets_file(self) -> Path:
        """Generated passwords and keys, mode 0600."""
        return self.root / "secrets.json"

    @property
    def state_file(self) -> Path:
        """Ports and choices that a restart must find again."""
        return self.root / "state.json"

    @property
    def run_file(self) -> Path:
        """The running processes and their addresses, for `penstock ps` and its siblings."""
        return self.root / "run.json"

    @property
    def root_key_file(self) -> Path:
        """The key that wraps all tenants' keys: 32 random bytes in base64, mode 0600."""
        return self.root / "root.key"

    @property
    def nats(self) -> Path:
        """JetStream stores and configurations."""
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        """The database cluster's surroundings; the cluster itself is `data` below it."""
        return self.root / "postgres"

    @property
    def models(self) -> Path:
        """The models that operators added (`PENSTOCK_MODEL_STORE`)."""
        return self.root / "models"

    def service(self, name: str) -> Path:
        """Name the directory that belongs to one service (`PENSTOCK_STATE_DIR`)."""
        return self.root / "services" / name

    def log(self, name: str) -> Path:
        """Name the log file of one process."""
        return self.root / "log" / f"{name}.log"

    def create(self) -> None:
        """Make the directory, or say what stands in the way.

        Raises:
            OperatorError: The place cannot be used by this user.
        """
        try:
            make_private_directory(self.root)
            make_private_directory(self.root / "log")
        except OSError as error:
            raise explain_os_error(error, self.root) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Own the directory while the context lasts; the kernel lets go when the owner dies.

        nats-server itself locks nothing: two servers would write one store.

        Raises:
            OperatorError: Another supervisor owns the directory.
        """
        self.create()
        with self.lock_file.open("a+") as lock:
            if not _take_lock(lock):
                raise _already_held(self)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield
            lock.truncate(0)

    def is_held(self) -> bool:
        """Tell whether a supervisor owns the directory right now."""
        with suppress(OSError), self.lock_file.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _take_lock(lock: IO[str]) -> bool:
    """Try for a moment: `penstock ps` holds a shared lock for the blink of its question."""
    for _ in range(_LOCK_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOCK_PAUSE_S)
    return False


def _already_held(data_dir: DataDir) -> OperatorError:
    owner = data_dir.lock_file.read_text(encoding="utf-8").strip() or "unknown"
    return OperatorError(
        f"Another `penstock up` (process {owner}) already runs on {data_dir.root}.",
        "Stop it (Ctrl-C, or `kill` with its process number), or start this one elsewhere"
        " with --data-dir DIR --port 0.",
    )
