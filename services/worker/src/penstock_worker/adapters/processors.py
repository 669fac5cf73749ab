"""How many processors this process really has: a container's quota, not the machine's count."""

from __future__ import annotations

import os
from pathlib import Path


def available_processors(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole processors, at least one.

    Sources: the Linux kernel's cgroup-v2 (`cpu.max`) and cgroup-v1 (`cpu.cfs_quota_us`)
    documentation.
    """
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _quota(cgroup: Path) -> float | None:
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError):
        return None
