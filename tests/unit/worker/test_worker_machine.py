"""What a worker may take of its machine: a container's share counts, not the machine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_worker.adapters.cuda_memory import cuda_memory_bytes
from penstock_worker.adapters.machine import (
    Machine,
    available_memory_bytes,
    available_processors,
    read_machine,
)

MEMINFO = "MemTotal:  9000 kB\nMemFree:  1000 kB\nMemAvailable:    4000 kB\n"
GROUPS_V1 = "9:name=systemd:/\n4:memory:/jobs/one\n1:cpu,cpuacct:/jobs/one\n0::/\n"


def machine_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, None),
        (
            {
                "proc/self/cgroup": "0::/system.slice/penstock.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/system.slice/penstock.service/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": GROUPS_V1,
                "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ({}, None),
    ],
)
def test_a_containers_quota_counts_not_the_machines_processors(tmp_path: Path, files, most):
    """A slot per processor that is really there: more slots than that only slow each other."""
    unlimited = available_processors(tmp_path / "nowhere")
    assert available_processors(machine_of(tmp_path, files)) == (most or unlimited)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4000 * 1024),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 4000 * 1024),
        ({"sys/fs/cgroup/memory.max": "1048576\n"}, 1048576),
        ({"sys/fs/cgroup/memory.max": "999999999999\n"}, 4000 * 1024),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152\n"}, 2097152),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/system.slice/penstock.service\n",
                "sys/fs/cgroup/system.slice/penstock.service/memory.max": "max\n",
                "sys/fs/cgroup/system.slice/memory.max": "3145728\n",
            },
            3145728,
        ),
        (
            {
                "proc/self/cgroup": GROUPS_V1,
                "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "1048576\n",
            },
            1048576,
        ),
    ],
)
def test_the_container_limit_or_less_is_what_may_be_taken(tmp_path: Path, files, expected):
    """Both versions of control groups, the process's own and those around it."""
    root = machine_of(tmp_path, {"proc/meminfo": MEMINFO} | files)
    assert available_memory_bytes(root) == expected


def test_a_system_without_proc_still_has_memory_and_a_name(tmp_path: Path):
    """There the whole machine's memory counts."""
    machine = read_machine(tmp_path)
    assert machine.memory_bytes > 0
    assert machine.processors >= 1


class Driver:
    """What the CUDA driver answers; it is called by its C names."""

    def __init__(self, fails: str | None = None) -> None:
        self._fails = fails

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name == "cuDeviceTotalMem_v2":
                arguments[0]._obj.value = 24 << 30
            return int(name == self._fails)

        return call


def test_a_gpus_own_memory_is_what_its_driver_says():
    """A driver that refuses, or that is not there, leaves it to the operator."""

    def absent(name: str) -> Any:
        raise OSError(name)

    assert cuda_memory_bytes(lambda _: Driver()) == 24 << 30
    assert cuda_memory_bytes(lambda _: Driver(fails="cuInit")) is None
    assert cuda_memory_bytes(absent) is None


def test_machines_alike_share_a_fingerprint(tmp_path: Path):
    """Free memory varies with each start; another processor or another count is another machine."""
    here = Machine("Some CPU", 2, 20 << 30)
    assert here.fingerprint == Machine("Some CPU", 2, 21 << 30).fingerprint
    others = [
        Machine("Other CPU", 2, 20 << 30),
        Machine("Some CPU", 4, 20 << 30),
        Machine("Some CPU", 2, 2 << 30),
    ]
    assert here.fingerprint not in {other.fingerprint for other in others}
    named = machine_of(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU\n"})
    assert read_machine(named).processor == "Some CPU"
