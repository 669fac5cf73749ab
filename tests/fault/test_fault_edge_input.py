"""Every door of a running stack against inputs that nobody should send.

Mutations of valid requests, seeded: HTTP bodies, headers, query strings and paths; WebSocket
events, binary messages and raw bytes; NATS submissions, look-ups and the queue, with their headers.
None may be answered with a 500 or not at all, cost memory, sockets or tasks that do not come back,
or leave a secret in a log. `PENSTOCK_FAULT_SEED` replays a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import nats
import nats.errors
import pytest
from nats.aio.client import Client
from tests.support.fuzz_inputs import Fuzzer
from tests.support.operator import operate
from tests.support.stack import Stack
from tests.support.websocket_wire import BINARY, CLOSE, CONTINUATION, HANDSHAKE, PING, TEXT, Wire

from penstock_shared.contracts.ids import uuid7

ENV: Final = {"PENSTOCK_ECHO_MODEL": "1", "PENSTOCK_LOST_SOCKET_GRACE_S": "1"}
TENANT: Final = "fuzzed"
CLIENTS: Final = 6
INPUTS, MANY_INPUTS = 2_000, 100_000
SILENCE_S: Final = 0.5
HANG_S: Final = 20.0
RSS_GROWTH_BOUND_BYTES: Final = 96 * 1024 * 1024
"""Of the edge over a whole run, whatever its length."""
FD_SLACK: Final = 8
TURN: Final = {"role": "user", "content": "SECRET says hello"}
FUNCTION: Final = {"name": "f", "description": "d", "parameters": {"type": "object"}}
POSTS: Final[dict[str, dict[str, Any]]] = {
    "/v1/responses": {
        "model": "echo", "input": [TURN], "instructions": "SECRET", "max_output_tokens": 4,
        "temperature": 0, "stream": True, "metadata": {"k": "v"}, "store": False,
        "tools": [{"type": "function", **FUNCTION}], "text": {"format": {"type": "text"}},
    },
    "/v1/chat/completions": {
        "model": "echo", "messages": [TURN], "max_completion_tokens": 4, "n": 1, "stream": False,
        "tools": [{"type": "function", "function": FUNCTION}], "stream_options": None,
        "response_format": {"type": "text"},
    },
    "/v1/embeddings": {
        "model": "echo", "input": ["SECRET", "two"], "encoding_format": "float", "dimensions": 8,
    },
}  # fmt: skip
EVENTS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "response.create", "stream_id": "s", "model": "echo", "input": "SECRET"},
    {"type": "response.create", "model": "echo", "input": [TURN], "max_output_tokens": 2},
    {"type": "response.cancel", "response_id": "resp_1"},
    {"type": "response.resume", "response_id": "resp_1", "starting_after": 3, "stream_id": "s"},
    {"type": "session.start", "policy": "drop_oldest"},
    {"type": "session.resume", "session_id": "SECRET", "positions": {"resp_1": 4}},
)
SENTINEL: Final = b'{"type":"fuzz.sentinel"}'
SUBMISSION: Final = {"model": "echo", "input": "SECRET", "max_output_tokens": 4}


@dataclass
class Doors:
    """A stack, and a tenant's ways into it."""

    stack: Stack
    key: str
    fuzzer: Fuzzer
    bus: Client
    told: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(urlsplit(self.stack.ready["http"]).port or 0)

    @property
    def authorized(self) -> dict[str, str]:
        return {"Host": "edge", "Authorization": f"Bearer {self.key}", "Connection": "close"}

    async def post(self) -> None:
        """A mutated body to one of the routes."""
        fuzzer = self.fuzzer
        path = fuzzer.rng.choice(list(POSTS))
        body = fuzzer.body(POSTS[path])
        headers = self.authorized | {"Content-Length": str(len(body))}
        await self._http(f"POST {path} HTTP/1.1", headers, body)

    async def request(self) -> None:
        """A mutated head."""
        fuzzer = self.fuzzer
        method = fuzzer.rng.choice(("GET", "POST", "DELETE", "PUT", "OPTIONS", "PATCH", "G\x00T"))
        version = fuzzer.rng.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9"))
        path = fuzzer.path() if fuzzer.rng.random() < 0.8 else "/v1/responses"
        body = fuzzer.body(POSTS["/v1/responses"]) if method == "POST" else b""
        headers = self.authorized | ({"Content-Length": str(len(body))} if body else {})
        await self._http(f"{method} {path} {version}", fuzzer.headers(headers), body)

    async def socket(self) -> None:
        """A WebSocket with some events, a sentinel that must be answered, and an end."""
        async with await Wire.connect(self.port) as wire:
            headers = HANDSHAKE | {"Authorization": f"Bearer {self.key}"}
            answer = await wire.handshake("/v1/responses", headers)
            assert answer.status == 101, answer
            for _ in range(self.fuzzer.rng.randint(1, 4)):
                wire.send(TEXT, self.fuzzer.body(self.fuzzer.rng.choice(EVENTS)))
            wire.send(TEXT, SENTINEL)
            await self._until_sentinel(wire)
            if self.fuzzer.rng.random() < 0.5:
                wire.send(CLOSE, b"\x03\xe8")
                await wire.close_code()

    async def frames(self) -> None:
        """A WebSocket with raw bytes: frames of any kind, whole or not, then silence."""
        rng = self.fuzzer.rng
        async with await Wire.connect(self.port) as wire:
            headers = HANDSHAKE | {"Authorization": f"Bearer {self.key}"}
            await wire.handshake("/v1/responses", headers)
            for _ in range(rng.randint(1, 3)):
                opcode = rng.choice((TEXT, BINARY, CONTINUATION, PING, CLOSE, 3, 11))
                payload = rng.randbytes(rng.choice((0, 1, 2, 125, 126, 3000)))
                wire.send(opcode, payload, fin=rng.random() < 0.8, masked=rng.random() < 0.9)
            wire.writer.write(rng.randbytes(rng.randrange(40)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    while (frame := await wire.receive()) is not None:
                        if frame.opcode == CLOSE and frame.payload[:2] == b"\x03\xf3":
                            self.bad.append("a WebSocket was closed with 1011")

    async def ask(self) -> None:
        """A submission or a look-up over NATS: whatever it is, somebody answers."""
        rng = self.fuzzer.rng
        name = rng.choice(("submit", "submit", "get"))
        valid = SUBMISSION if name == "submit" else {"request_id": _new_id(rng)}
        try:
            reply = await self.bus.request(
                f"v1.{TENANT}.requests.{name}",
                self.fuzzer.body(valid),
                timeout=HANG_S,
                headers=self._event_headers(),
            )
        except nats.errors.TimeoutError:
            self.bad.append(f"requests.{name} was not answered")
            return
        self._judge(f"nats {name}", json.loads(reply.data))

    async def queue(self) -> None:
        """Fire and forget."""
        await self.bus.publish(
            f"v1.{TENANT}.requests.queue",
            self.fuzzer.body(SUBMISSION),
            headers=self._event_headers(),
        )
        self.told["nats queue"] += 1

    def _event_headers(self) -> dict[str, str]:
        rng = self.fuzzer.rng
        given = {
            "ce-specversion": "1.0",
            "ce-id": _new_id(rng),
            "ce-source": "/fuzz",
            "ce-type": "penstock.request.submit.v1",
        }
        for name in (*given, "traceparent", "Nats-Msg-Id", "content-type"):
            if rng.random() < 0.1:
                given[name] = rng.choice(("", "x", "9" * 500, "é", "../..", "a b", "2.0"))
        return {name: value for name, value in given.items() if rng.random() < 0.97}

    def _judge(self, where: str, answer: Any) -> None:
        """Count an answer of NATS's; a rejection has a status, and it is never 500."""
        reply = answer.get("reply", answer)
        status = reply.get("http_status", 200)
        self.told[f"{where} {status}"] += 1
        if status == 500 or (reply.get("error") or {}).get("code") == "internal_error":
            self.bad.append(f"{where}: {str(reply)[:300]}")

    async def _until_sentinel(self, wire: Wire) -> None:
        while (frame := await wire.receive()) is not None:
            if frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big")
                self.told[f"websocket closed {code}"] += 1
                if code == 1011:
                    self.bad.append("a WebSocket was closed with 1011")
                return
            event = json.loads(frame.payload)
            if event["type"] != "error":
                continue
            self.told[f"websocket {event['status']}"] += 1
            if event["status"] == 500:
                self.bad.append(f"websocket: {str(event)[:300]}")
            if "fuzz.sentinel" in event["error"]["message"]:
                return

    async def _http(self, line: str, headers: dict[str, str], body: bytes) -> None:
        head = [line, *(f"{name}: {value}" for name, value in headers.items())]
        raw = "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer, more = b"", b"more"
        try:
            writer.write(raw)
            with contextlib.suppress(ConnectionError):
                try:
                    while more:
                        async with asyncio.timeout(SILENCE_S):
                            more = await reader.read(1 << 16)
                        answer = (answer + more)[:4000]
                except TimeoutError:  # it waits for more, or keeps the connection: that was all
                    writer.write_eof()
                async with asyncio.timeout(HANG_S):
                    while more:
                        more = await reader.read(1 << 16)
        except TimeoutError:
            self.bad.append(f"no end after {line[:200]!r}, {str(headers)[:300]}, {body[:200]!r}")
        finally:
            writer.transport.abort()
        status = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.") else "closed"
        self.told[f"http {status}"] += 1
        if status in {"500", "502"}:
            self.bad.append(f"{line[:200]!r}, {body[:500]!r}: {answer[-400:]!r}")


def _new_id(rng: random.Random) -> str:
    return uuid7(int(time.time() * 1000), rng.randbytes)


@contextlib.asynccontextmanager
async def opened(directory: Path, seed: int) -> AsyncIterator[Doors]:
    """A stack, and a tenant without limits in front of it."""
    secret = f"marker{secrets.token_hex(8)}"
    with Stack(directory / "data", env=ENV) as stack:
        limit = "1000000000"
        await operate(
            stack, "tenants", "create", TENANT, "--name", "Fuzz", "--requests-per-minute", limit
        )
        key = str((await operate(stack, "keys", "create", TENANT, "--name", "fuzz"))["secret"])
        await _until_known(stack, key)
        bus = await nats.connect(
            stack.ready["nats"], token=key, inbox_prefix=f"_INBOX_{TENANT}".encode()
        )
        yield Doors(stack, key, Fuzzer(seed, secret), bus)
        await bus.close()


async def _until_known(stack: Stack, key: str) -> None:
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {key}"}
        while (await client.get(stack.ready["http"] + "/v1/models", headers=headers)).is_error:
            await asyncio.sleep(0.05)


async def pour(doors: Doors, inputs: int) -> None:
    """So many inputs through all doors, some at a time; the seed decides their order."""
    ways: list[tuple[Callable[[], Awaitable[None]], float]] = [
        (doors.post, 0.3), (doors.request, 0.2), (doors.socket, 0.15), (doors.frames, 0.1),
        (doors.ask, 0.2), (doors.queue, 0.05),
    ]  # fmt: skip
    left = inputs

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            [way] = doors.fuzzer.rng.choices([w for w, _ in ways], [share for _, share in ways])
            await way()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


@pytest.mark.timeout(240)
async def test_two_thousand_bad_inputs(tmp_path: Path) -> None:
    """The short form (I8)."""
    await _fuzz(tmp_path, INPUTS)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_hundred_thousand_bad_inputs(tmp_path: Path) -> None:
    """The same for long enough to see what leaks slowly (I8)."""
    await _fuzz(tmp_path, MANY_INPUTS)


async def _fuzz(directory: Path, inputs: int) -> None:
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    async with opened(directory, seed) as doors:
        await pour(doors, 200)  # pools and caches fill
        stack, pids = doors.stack, doors.stack.ready["pids"]
        edge = int(pids["realtime"])
        fds, rss = _open_files(edge), _rss_bytes(edge)
        await pour(doors, inputs)
        print(dict(sorted(doors.told.items())))
        assert not doors.bad, doors.bad[:5]
        assert stack.ready["pids"] == pids, "a process died"
        await _serves(doors)
        await _lets_go(stack, edge, fds)
        assert _rss_bytes(edge) - rss < RSS_GROWTH_BOUND_BYTES
        metrics = await _metrics(stack)
        assert not re.findall(r'requests_total\{[^}]*status="500"\} [1-9]', metrics)
        for log in (stack.data_dir / "log").glob("*.log"):
            text = log.read_text(errors="replace")
            for secret in (doors.fuzzer._secret, doors.key):
                assert secret not in text, f"{log.name} has a secret"


async def _serves(doors: Doors) -> None:
    """Every door still does what it is for, behind all that was thrown at it."""
    stack = doors.stack
    async with httpx.AsyncClient(timeout=60) as client:
        headers = {"authorization": f"Bearer {doors.key}"}
        body = {"model": "echo", "input": "still here"}
        url = stack.ready["http"] + "/v1/responses"
        answer = await client.post(url, json=body, headers=headers)
    assert answer.json()["output"][0]["content"][0]["text"] == "still here"
    request_id = _new_id(random.Random())
    event = {"ce-specversion": "1.0", "ce-id": request_id, "ce-source": "/t"}
    event["ce-type"] = "penstock.request.submit.v1"
    await doors.bus.publish(f"v1.{TENANT}.requests.queue", json.dumps(body).encode(), headers=event)
    question = json.dumps({"request_id": request_id}).encode()
    async with asyncio.timeout(60):
        while True:
            reply = await doors.bus.request(f"v1.{TENANT}.requests.get", question, timeout=10)
            if json.loads(reply.data).get("status") == "ended":
                return
            await asyncio.sleep(0.1)


async def _lets_go(stack: Stack, edge: int, fds: int) -> None:
    """Sockets and responses of clients that have gone are gone, too."""
    async with asyncio.timeout(60):
        while True:
            metrics = await _metrics(stack)
            idle = all(
                re.search(rf"^{name} 0\.0$", metrics, re.MULTILINE)
                for name in (
                    "penstock_realtime_ws_active_connections",
                    "penstock_realtime_responses_running",
                )
            )
            if idle and _open_files(edge) <= fds + FD_SLACK:
                return
            await asyncio.sleep(0.2)


async def _metrics(stack: Stack) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(stack.ready["metrics"]["realtime"])).text


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
