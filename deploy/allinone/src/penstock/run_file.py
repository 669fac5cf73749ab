"""What a running stack tells about itself: the run file for operators, the ready file for users."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from penstock.private_file import write_private
from penstock.supervision.spec import ProcessStatus

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessRecord(BaseModel):
    """One process in the run file."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int | None
    # When the kernel started it, in clock ticks since boot: tells a pid from its later reuse.
    started_ticks: int | None
    state: str
    restarts: int
    ports: dict[str, int]


class Addresses(BaseModel):
    """Where a stack's parts are; passwords included, hence the file's mode 0600."""

    model_config = ConfigDict(frozen=True)

    http: str
    nats: str
    nats_url: str
    postgres: str
    redis: str
    admin_key: str
    audit_dir: str
    metrics: dict[str, str]


class RunFile(BaseModel):
    """The contents of `run.json`."""

    model_config = ConfigDict(frozen=True)

    # Tells these processes from others that bear their numbers after a reboot.
    boot_id: str
    supervisor_pid: int
    addresses: Addresses
    processes: tuple[ProcessRecord, ...] = ()


class ReadyFile(BaseModel):
    """The contents of the file that `--ready-file` names."""

    model_config = ConfigDict(frozen=True)

    http: str
    nats: str
    postgres: str
    redis: str
    tenant: str
    api_key: str
    admin_key: str
    metrics: dict[str, str]
    pids: dict[str, int]


def record(status: ProcessStatus) -> ProcessRecord:
    """Turn the supervisor's knowledge of one process into its record."""
    return ProcessRecord(
        name=status.name,
        pid=status.pid,
        started_ticks=started_ticks(status.pid) if status.pid is not None else None,
        state=status.state.value,
        restarts=status.restarts,
        ports=dict(status.ports),
    )


def write_model(path: Path, model: BaseModel) -> None:
    """Write a run or ready file, atomically and mode 0600; neither matters after a power cut."""
    write_private(path, model.model_dump_json(indent=1) + "\n", durable=False)


def read_run_file(path: Path) -> RunFile | None:
    """Read a run file; None when there is none or a crash damaged it."""
    try:
        return RunFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def started_ticks(pid: int) -> int | None:
    """Tell when the kernel started a process (proc(5), field 22 of stat); None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in field 2 may hold blanks and brackets: count from its end.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def is_alive(entry: ProcessRecord) -> bool:
    """Tell whether exactly the recorded process still runs."""
    if entry.pid is None or entry.started_ticks is None:
        return False
    return started_ticks(entry.pid) == entry.started_ticks


def boot_id() -> str:
    """Return the kernel's identifier of this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def survivors(stack: RunFile | None) -> list[ProcessRecord]:
    """List the recorded processes that still run."""
    if stack is None or stack.boot_id != boot_id():
        return []
    return [entry for entry in stack.processes if is_alive(entry)]
