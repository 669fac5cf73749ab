"""Durable writes per request, counted: publishes and acks by the broker, fsyncs by the kernel.

DESIGN.md promises three durable publishes (`routed`, the job, the terminal fact) and one work-queue
acknowledgement per request. The streams' own sequence numbers say whether that holds; strace, where
it is at hand, counts what nats-server asks of the disk meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import nats
from nats.js.api import StorageType
from nats.js.client import JetStreamContext

from benchmarks.end_to_end import target_of
from benchmarks.harness import stack
from benchmarks.harness.load import measure
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_shared.contracts.streams import EVENTS, JOBS
from penstock_shared.contracts.subjects import EVERY_REQUEST_EVENT

CONCURRENCIES: Final = (1, 16)
PUBLISHES_AIM: Final = 3
ACKS_AIM: Final = 1
_ATTACH_S: Final = 1.0
_TOTAL: Final = re.compile(r"^\s*100\.00\s+\S+\s+(?:\d+\s+)?(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages that streams on disk have taken so far, and jobs that were acknowledged."""

    request_events: int
    jobs: int
    others: int
    """Everything else on disk, except audit's checkpoints: they come per batch."""
    job_acks: int

    def since(self, before: Counts) -> Counts:
        """What has been added."""
        return Counts(
            **{f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}
        )

    @property
    def publishes(self) -> int:
        """All durable publishes."""
        return self.request_events + self.jobs + self.others


async def durable_counts(bus_url: str) -> Counts:
    """Ask the broker; `bus_url` carries the services' credentials."""
    connection = await nats.connect(bus_url.split(","))
    try:
        jetstream = connection.jetstream()
        streams = {s.config.name: s for s in await jetstream.streams_info()}
        on_disk = [s for s in streams.values() if s.config.storage is StorageType.FILE]
        return Counts(
            request_events=await _messages(jetstream, EVENTS, EVERY_REQUEST_EVENT),
            jobs=streams[JOBS].state.last_seq,
            others=sum(s.state.last_seq for s in on_disk if s.config.name not in {EVENTS, JOBS}),
            # A work queue lets go of a message when it is acknowledged, and only then.
            job_acks=streams[JOBS].state.last_seq - streams[JOBS].state.messages,
        )
    finally:
        await connection.close()


async def _messages(jetstream: JetStreamContext, stream: str, subjects: str) -> int:
    """How many messages `stream` holds on `subjects`; EVENTS forgets none within a day."""
    info = await jetstream.stream_info(stream, subjects_filter=subjects)
    return sum((info.state.subjects or {}).values())


@contextmanager
def counting_fsyncs(pid: int) -> Iterator[list[int]]:
    """Fill the list with the number of fsyncs of a process; without strace it stays empty."""
    found: list[int] = []
    if shutil.which("strace") is None:
        yield found
        return
    with tempfile.NamedTemporaryFile() as table:
        command = ["strace", "-c", "-f", "-e", "trace=fsync,fdatasync", "-p", str(pid)]
        tracer = subprocess.Popen([*command, "-o", table.name], stderr=subprocess.DEVNULL)
        time.sleep(_ATTACH_S)
        try:
            yield found
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
        total = _TOTAL.search(Path(table.name).read_text())
        found += [int(total[1])] if total else []


def run(options: Options) -> Report:
    """Count at each concurrency; strace slows the server, so nothing here is about speed."""
    duration_s = 2.0 if options.quick else 8.0
    rows, figures = [], []
    with stack.running(stack.ECHO) as running:
        call = target_of(running).call
        measure(call, 1, 1.0)  # the key's first request writes its data key
        for concurrency in CONCURRENCIES:
            running.settle()
            before = asyncio.run(durable_counts(running.bus_url))
            with counting_fsyncs(running.pids["nats"]) as fsyncs:
                requests = measure(call, concurrency, duration_s).requests
                running.settle()
            added = asyncio.run(durable_counts(running.bus_url)).since(before)
            figures.append(_figures(concurrency, requests, added, fsyncs))
            rows.append(_row(figures[-1]))
    columns = ("in flight", "requests", "facts", "jobs", "others", "job acks", "fsyncs/request")
    return Report(
        name="publishes",
        grids=[Grid("Durable writes", columns, tuple(rows))],
        figures={"rows": figures},
        aims=[_aim(figures)],
    )


def _figures(
    concurrency: int, requests: int, added: Counts, fsyncs: list[int]
) -> dict[str, float | None]:
    return {
        "concurrency": concurrency,
        "requests": requests,
        "request_events": added.request_events,
        "jobs": added.jobs,
        "others": added.others,
        "job_acks": added.job_acks,
        "publishes_per_request": added.publishes / requests,
        "acks_per_request": added.job_acks / requests,
        "fsyncs_per_request": fsyncs[0] / requests if fsyncs else None,
    }


def _row(figures: dict[str, float | None]) -> tuple[str, ...]:
    fsyncs = figures["fsyncs_per_request"]
    counted = ("concurrency", "requests", "request_events", "jobs", "others", "job_acks")
    return (
        *(f"{figures[name]}" for name in counted),
        "no strace here" if fsyncs is None else f"{fsyncs:.2f}",
    )


def _aim(figures: list[dict[str, float | None]]) -> Aim:
    per_request = [(row["publishes_per_request"], row["acks_per_request"]) for row in figures]
    return Aim(
        "three durable publishes and one work-queue ack per request",
        ", ".join(f"{publishes:g} and {acks:g}" for publishes, acks in per_request),
        all(pair == (PUBLISHES_AIM, ACKS_AIM) for pair in per_request),
    )
