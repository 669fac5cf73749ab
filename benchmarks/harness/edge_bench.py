"""An edge on one core, and everything else on the others: what the edge itself costs.

The servers are the embedded ones; the edge is `python -m penstock_realtime`. Its router and workers
are this process: it accepts every request at once and publishes the frames, so that nothing but the
edge stands between a frame's publication and its arrival at a client in the same process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nats.aio.msg import Msg

from benchmarks.harness import stack
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import (
    KeyRecord,
    TenantRecord,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Accepted, Admission, AdmissionReply
from penstock_shared.contracts.responses import encode_delta
from penstock_shared.contracts.streams import Bucket
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.kv import put
from penstock_shared.runtime.provision import provision

TENANT: Final = "bench"
MODEL: Final = "bench"
RUN: Final = "0190e0f0-0000-7000-8000-000000000000"
FIRST_TEXT: Final = "first"
_PER_MINUTE: Final = 1_000_000_000
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0
_FILES: Final = 12_000


class EdgeBenchError(Exception):
    """Something did not start."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server process with the core to itself."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class EdgeBench:
    """A bus, a key, and the router's part played by this process."""

    broker: Broker
    bus_url: str
    redis_url: str
    root_key_file: Path
    key: str
    bus_pid: int
    core: int
    """The one that is kept free for the server that is measured."""

    @contextlib.asynccontextmanager
    async def edge(self) -> AsyncIterator[Served]:
        """The edge, with sessions, buffers and limits as in production."""
        given = {
            "PENSTOCK_NATS_URL": self.bus_url,
            "PENSTOCK_REDIS_URL": self.redis_url,
            "PENSTOCK_ROOT_KEY_FILE": str(self.root_key_file),
            "PENSTOCK_MAX_SOCKETS_PER_ADDRESS": "100000",
            "PENSTOCK_MAX_SOCKETS_PER_TENANT": "100000",
        }
        async with _process("penstock_realtime", "PENSTOCK_HTTP_PORT", given, self.core) as served:
            yield served

    @contextlib.asynccontextmanager
    async def plain(self) -> AsyncIterator[Served]:
        """`plain_push`: Starlette on the same server."""
        given = {"BENCH_NATS_URL": self.bus_url}
        async with _process(
            "benchmarks.harness.plain_push", "BENCH_PORT", given, self.core
        ) as served:
            yield served


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[EdgeBench]:
    """Servers without services, and the router's part; this process leaves the first core alone."""
    cores = os.sched_getaffinity(0)
    _allow_files()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-edge-") as scratch,
        stack.running({"PENSTOCK_SERVICES": ""}) as servers,
    ):
        root_key_file = Path(scratch) / "root.key"
        root_key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        broker = await Broker.connect(servers.bus_url, name="bench")
        await provision(broker, 1)
        key = await _account(broker)
        await broker.client.listen(subjects.EVERY_ADMITTED, _accept(broker), queue="router")
        others = cores - {min(cores)} or cores
        pids = servers.ready["pids"]
        for pid in (os.getpid(), *pids.values()):
            pin(int(pid), others)
        try:
            yield EdgeBench(
                broker,
                servers.bus_url,
                str(servers.ready["redis"]),
                root_key_file,
                key,
                int(pids["nats"]),
                min(cores),
            )
        finally:
            pin(os.getpid(), cores)
            await broker.close()


def pin(pid: int, cores: set[int]) -> None:
    """Keep all threads of a process on these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cores)


def _accept(broker: Broker) -> Callable[[Msg], None]:
    """Answer at once; the first delta follows the answer as fast as it can."""
    answers: set[asyncio.Task[None]] = set()

    async def answer(msg: Msg) -> None:
        tenant = subjects.parse(msg.subject).tenant
        request_id = Admission.model_validate_json(msg.data).request_id
        accepted = Accepted(request_id=request_id, model=MODEL, accepted_at=datetime.now(UTC))
        reply = AdmissionReply(reply=accepted).model_dump_json().encode()
        await broker.client.publish(msg.reply, reply)
        first = encode_delta(1, RUN, 0, FIRST_TEXT)
        await broker.client.publish(subjects.responses(tenant, request_id), first)

    def on_admitted(msg: Msg) -> None:
        answering = asyncio.ensure_future(answer(msg))
        answers.add(answering)
        answering.add_done_callback(answers.discard)

    return on_admitted


async def _account(broker: Broker) -> str:
    now, secret = datetime.now(UTC), make_api_key(os.urandom)
    tenant = TenantRecord(
        tenant=TENANT, name=TENANT, requests_per_minute=_PER_MINUTE, created_at=now
    )
    key = KeyRecord(
        key_id="key_bench", tenant=TENANT, name="bench", hint=secret[-4:], created_at=now
    )
    price = Price(input_microusd_per_1k=1, output_microusd_per_1k=1)
    model = ModelRecord(name=MODEL, version="1", parameters=0, context_tokens=4096, price=price)
    await put(broker, Bucket.MODELS, MODEL, model.model_dump_json().encode())
    await put(broker, Bucket.TENANTS, TENANT, tenant.model_dump_json().encode())
    await put(broker, Bucket.KEYS, hash_api_key(secret), key.model_dump_json().encode())
    return secret


@contextlib.asynccontextmanager
async def _process(
    module: str, port_name: str, given: Mapping[str, str], core: int
) -> AsyncIterator[Served]:
    port = _free_port()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environ |= {**given, port_name: str(port)}
    process = subprocess.Popen(  # noqa: ASYNC220  nothing else runs yet
        [sys.executable, "-m", module], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await _listens(port):
                if process.poll() is not None:
                    msg = f"{module} did not start"
                    raise EdgeBenchError(msg)
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # so that what it does at its start is over
        pin(process.pid, {core})
        yield Served(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
