"""What a killed PostgreSQL leaves behind, and how it goes before the next start."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from penstock.embedded.identities import seen_as
from penstock.supervision.spec import Identity

_GONE_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.01


async def remove_leftovers(cluster: Path, identity: Identity | None) -> None:
    """Kill surviving backends and remove the stale lock file of a cluster.

    A backend that outlives its postmaster keeps the shared memory, and with it the next
    postmaster from starting; an empty or stale `postmaster.pid` does so too. The caller holds the
    data directory, so no other postmaster can be the owner.
    """
    give_up_at = time.monotonic() + _GONE_WITHIN_S
    while survivors := processes_in(cluster, identity):
        for pid in survivors:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > give_up_at:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def processes_in(directory: Path, identity: Identity | None = None) -> list[int]:
    """List the processes whose working directory is this one, as far as this user may see."""
    wanted = os.path.realpath(directory)
    with seen_as(identity):
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if _working_directory(pid) == wanted]


def _working_directory(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:  # gone meanwhile, a zombie, or someone else's
        return None
