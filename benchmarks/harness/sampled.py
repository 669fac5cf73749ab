"""`python -m benchmarks.harness.sampled OUT MODULE`: runs a module and samples its main thread.

The kernel's profiling timer counts the processor time of the process, so waiting does not count.
Written at the end: how many samples had each of our functions, and each package of others, anywhere
on the stack ("busy": all samples). Only what the event loop runs is counted, so imports are not.
Unlike a tracing profiler it makes small functions no dearer than they are; unlike a sampling thread
it does not wait for the interpreter's lock, which system calls let go of.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

_EVERY_S: Final = 0.001
"""Or the kernel's tick, where that is longer."""
_OURS: Final = "penstock_"
_OTHERS: Final = ("pydantic", "nats", "cryptography", "numpy", "json", "prometheus_client")
_LOOP: Final = "asyncio"


def places(frame: FrameType | None) -> set[str]:
    """Our functions, and the packages of others, that the event loop is in; empty outside of it."""
    found: set[str] = set()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package == _LOOP:
            return found | {"the event loop"}
        if module.startswith(_OURS):
            found.add(f"{module.removeprefix(_OURS)}: {frame.f_code.co_qualname}")
        elif package in _OTHERS:
            found.add(f"({package})")
        frame = frame.f_back
    return set()


def main() -> None:
    """Run the module; the counts are written when it ends."""
    out, module = Path(sys.argv[1]), sys.argv[2]
    sys.argv = [module]
    counted: Counter[str] = Counter(busy=0)

    def on_tick(_: int, frame: FrameType | None) -> None:
        found = places(frame)
        if found:
            counted["busy"] += 1
            counted.update(found)

    signal.signal(signal.SIGPROF, on_tick)
    signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(counted))


if __name__ == "__main__":
    main()
