"""What a restart must find again: ports, the topology of the bus, its bounds."""

import shutil
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.data_dir import DataDir
from penstock.errors import OperatorError
from penstock.private_file import write_private

_GIB = 1 << 30
_SMALLEST_STORE = 1 * _GIB
_LARGEST_STORE = 100 * _GIB
_SHARE_OF_FREE_DISK = 0.7


class Topology(StrEnum):
    """How the embedded bus runs: one server, or three that replicate on this machine."""

    SINGLE = "single"
    CLUSTER3 = "cluster3"

    @property
    def replicas(self) -> int:
        """Copies of each stream (`PENSTOCK_STREAM_REPLICAS`)."""
        return 3 if self is Topology.CLUSTER3 else 1


class Remembered(BaseModel):
    """The contents of the state file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topology: Topology
    # Bytes. Fixed when the directory is made: a limit that shrank with the free disk would keep
    # nats-server from restoring streams that have reserved their space.
    max_file_store: int
    ports: dict[str, int] = {}


def recall(data_dir: DataDir, topology: Topology) -> Remembered:
    """Read the state file, or begin a new one.

    Raises:
        OperatorError: The directory was made with another topology, or its file is damaged.
    """
    path = data_dir.state_file
    try:
        stored = Remembered.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Remembered(topology=topology, max_file_store=file_store_bound(data_dir.root))
    except ValidationError as error:
        raise OperatorError(
            f"{path} is damaged ({error.error_count()} entries cannot be read).",
            "Restore it from a backup, or delete it: ports are then chosen anew.",
        ) from error
    if stored.topology is not topology:
        raise OperatorError(
            f"{data_dir.root} holds the streams of a {stored.topology.value!r} bus, and"
            f" {topology.value!r} was asked for.",
            f"Set PENSTOCK_NATS_TOPOLOGY={stored.topology.value}, or take a new --data-dir.",
        )
    return stored


def remember(data_dir: DataDir, state: Remembered) -> None:
    """Write the state file."""
    write_private(data_dir.state_file, state.model_dump_json(indent=1))


def file_store_bound(root: Path) -> int:
    """Bound JetStream's files, in bytes: 70 % of the free disk, between 1 and 100 GiB."""
    free = shutil.disk_usage(root).free
    return int(min(_LARGEST_STORE, max(_SMALLEST_STORE, free * _SHARE_OF_FREE_DISK)))
