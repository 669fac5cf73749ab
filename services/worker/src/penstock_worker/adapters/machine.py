"""What this process really has: a container's share of processors and memory, not the machine's."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MEMORY_CLASS_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """What models run on."""

    processor: str
    """The model's name, as the system tells it."""
    processors: int
    """Whole ones that this process may use."""
    memory_bytes: int
    """What it may take, at the moment of asking."""

    @property
    def fingerprint(self) -> str:
        """The same for machines on which the same layout is best.

        Free memory varies from one start to the next, so only its order of magnitude counts.
        """
        memory_class = (self.memory_bytes // _MEMORY_CLASS_BYTES).bit_length()
        facts = f"{self.processor}|{self.processors}|{memory_class}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def read_machine(root: Path = Path("/")) -> Machine:
    """This machine, as of now."""
    return Machine(_processor(root), available_processors(root), available_memory_bytes(root))


def available_processors(root: Path = Path("/")) -> int:
    """Whole processors, at least one.

    Sources: the Linux kernel's cgroup-v2 (`cpu.max`) and cgroup-v1 (`cpu.cfs_quota_us`)
    documentation.
    """
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quotas = [int(quota) for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    return max(1, min([allowed, *quotas]))


def available_memory_bytes(root: Path = Path("/")) -> int:
    """What this process may still take: the container's limit, or less if the machine has less.

    Sources: the kernel's cgroup-v2 (`memory.max`) and cgroup-v1 (`memory.limit_in_bytes`)
    documentation; proc(5) on `MemAvailable`.
    """
    limits = [
        limit
        for group in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _whole_number(group / name)) is not None
    ]
    return min([_free_bytes(root), *limits])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """This process's control groups, from its own up to the root, of both versions.

    Inside a container the path that `/proc/self/cgroup` names may not exist: its own group is
    then what is mounted at the root.
    """
    mounted = root / "sys" / "fs" / "cgroup"
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    places = {"": "/"} | {
        name: path
        for number, names, path in (line.split(":", maxsplit=2) for line in lines if ":" in line)
        for name in (names.split(",") if number != "0" else [""])
    }
    for base, name in ((mounted, ""), (mounted / controller, controller)):
        own = base / places.get(name, "/").lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(base))


def _quota(group: Path) -> float | None:
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    limit_us = _whole_number(group / "cpu.cfs_quota_us")
    period_us = _whole_number(group / "cpu.cfs_period_us")
    return limit_us / period_us if limit_us and period_us and limit_us > 0 else None


def _whole_number(file: Path) -> int | None:
    """What the file holds; None for `max`, and for a file that is not there."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _free_bytes(root: Path) -> int:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(root, "meminfo"), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _processor(root: Path) -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _text(root, "cpuinfo"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found is not None else platform.processor() or platform.machine()


def _text(root: Path, name: str) -> str:
    return (root / "proc" / name).read_text()
