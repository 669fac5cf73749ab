"""Runs benchmarks: `python -m benchmarks [names…] [--quick] [--json] [--record]`."""

from __future__ import annotations

import argparse
import importlib
import shlex
import signal
import sys
from typing import Final

from rich.console import Console

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.report import Options, Report

NAMES: Final = (
    "end_to_end",
    "publishes",
    "topology",
    "streaming",
    "footprint",
    "engine_efficiency",
    "latency_under_load",
    "fairness",
    "autoscale",
    "long_outputs",
    "asgi_servers",
    "edge_connections",
    "edge_fanout",
    "edge_overhead",
    "limits",
    "billing_ingest",
    "quota_check",
    "quota_reservations",
    "invoice_preview",
    "router_decision",
    "router_hop",
    "router_quality",
    "router_throughput",
)


def main() -> int:
    """Run what was named, or everything; the last line of output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it runs")
    parser.add_argument("--rounds", type=int, help="measure so often; more is slower and steadier")
    parser.add_argument("--json", action="store_true", help="nothing but the lines of JSON")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    console = Console(highlight=False, stderr=given.json, quiet=given.json)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    describe_machine()  # the load before, not the one that we cause
    command = "python -m benchmarks " + shlex.join(sys.argv[1:])
    for name in given.names or NAMES:
        report: Report = importlib.import_module(f"benchmarks.{name}").run(
            Options(quick=given.quick, rounds=given.rounds)
        )
        report.print(console)
        if given.record:
            report.record(command.strip())
        print(report.json_line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
