"""Create PostgreSQL's cluster with initdb: whole or not at all."""

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.embedded.postgres_home import give_to
from penstock.errors import OperatorError, disk_is_full
from penstock.private_file import write_private
from penstock.supervision.spawn import child_setup, kill_group
from penstock.supervision.spec import Identity

SUPERUSER = "postgres"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Where the cluster lies and how its programs run."""

    install: Path
    directory: Path
    superuser_password: str = field(repr=False)
    identity: Identity | None
    env: Mapping[str, str] = field(repr=False)

    @property
    def data(self) -> Path:
        """The cluster (PGDATA)."""
        return self.directory / "data"


async def create_cluster(plan: ClusterPlan) -> None:
    """Create the cluster unless it exists; an interrupted attempt leaves no half of one.

    Raises:
        OperatorError: initdb failed; the message quotes it.
    """
    if plan.data.exists():
        return
    unfinished = plan.directory / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = plan.directory / "initdb.password"
    write_private(password_file, plan.superuser_password + "\n")
    give_to(password_file, plan.identity)
    try:
        await _initdb(plan, unfinished, password_file)
    finally:
        password_file.unlink(missing_ok=True)
    unfinished.rename(plan.data)


async def _initdb(plan: ClusterPlan, target: Path, password_file: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *_argv(plan, target, password_file),
        env=dict(plan.env),
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=child_setup(signal.SIGKILL, plan.identity),
    )
    try:
        output, _ = await process.communicate()
    finally:
        kill_group(process.pid)
    if process.returncode != 0:
        raise _initdb_failed(plan.directory, output.decode(errors="replace"))


def _initdb_failed(directory: Path, output: str) -> OperatorError:
    if os.strerror(errno.ENOSPC) in output:
        return disk_is_full(directory)
    complaints = [line for line in output.splitlines() if "FATAL" in line or "error:" in line]
    return OperatorError(
        "PostgreSQL's cluster could not be created: " + " ".join(complaints or output.split()),
        f"See whether {directory} may be written by this user; then start again.",
    )


def _argv(plan: ClusterPlan, target: Path, password_file: Path) -> tuple[str, ...]:
    return (
        str(plan.install / "bin" / "initdb"),
        f"--pgdata={target}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--data-checksums",
        "--no-instructions",
    )
