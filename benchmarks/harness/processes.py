"""What processes cost, as the kernel counts it (proc(5)): the load of others does not enter."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """User and system time so far, by name."""
    return {name: sum(map(_cpu_s, owned)) for name, owned in _families(pids).items()}


def pss_bytes(pids: Mapping[str, int]) -> dict[str, int]:
    """Proportional set size by name: shared pages count in equal parts, so sums are true."""
    return {name: sum(map(_pss, owned)) for name, owned in _families(pids).items()}


def _families(pids: Mapping[str, int]) -> dict[str, list[int]]:
    """Each process with its descendants, down to those that have a name of their own."""
    named = set(pids.values())
    return {name: list(_family(pid, named)) for name, pid in pids.items()}


def _family(pid: int, named: Collection[int]) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        if int(child) not in named:
            yield from _family(int(child), named)


def _cpu_s(pid: int) -> float:
    try:
        # The name in field 2 may hold blanks and brackets: count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
