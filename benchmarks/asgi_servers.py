"""ASGI servers on one small application: what ADR 0010 chose by.

One worker each, one after the other in every round. The client shares the machine; compare within
a run. Memory is the server's proportional set size with idle sockets, minus without.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import uvloop

from benchmarks.harness import asgi_peers
from benchmarks.harness.asgi_peers import SERVERS, Peer
from benchmarks.harness.load import Call, measure
from benchmarks.harness.processes import cpu_seconds, pss_bytes
from benchmarks.harness.raw_sockets import CLOSE, RawSocket, connect
from benchmarks.harness.report import Grid, Options, Report

FRAME_BYTES: Final = 150
_HTTP_CONNECTIONS: Final = 32
_SOCKETS: Final = 8
_ECHO_SOCKETS: Final = 32
_LARGE_BYTES: Final = 900_000
_LARGE_FRAMES: Final = 20
_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    rounds: int
    seconds: float
    frames: int
    idle: int


FULL: Final = Plan(rounds=3, seconds=3.0, frames=20_000, idle=500)
QUICK: Final = Plan(rounds=1, seconds=0.5, frames=2_000, idle=100)


@dataclass(slots=True)
class Found:
    """Every round's figures of one server."""

    http_per_s: list[float] = field(default_factory=list)
    http_cpu_us: list[float] = field(default_factory=list)
    push_per_s: list[float] = field(default_factory=list)
    push_cpu_us: list[float] = field(default_factory=list)
    echo_per_s: list[float] = field(default_factory=list)
    idle_kb: list[float] = field(default_factory=list)
    large: str = ""
    on_sigterm: str = ""


def run(options: Options) -> Report:
    """All servers, in rounds."""
    plan = QUICK if options.quick else FULL
    versions = asgi_peers.install()
    found = {name: Found() for name in SERVERS}
    for _ in range(options.rounds or plan.rounds):
        for name, one in found.items():
            with asgi_peers.running(name) as peer:
                _http(peer, plan, one)
                uvloop.run(_sockets(peer, plan, one))
    return Report("asgi_servers", [_speeds(found), _manners(found)], _figures(found), (), versions)


def _http(peer: Peer, plan: Plan, found: Found) -> None:
    call = Call.post(f"http://127.0.0.1:{peer.port}/", "key", {"input": "x"}, '"ok":true')
    measure(call, _HTTP_CONNECTIONS, plan.seconds / 4)
    before_s = _cpu_s(peer)
    seen = measure(call, _HTTP_CONNECTIONS, plan.seconds)
    found.http_cpu_us.append((_cpu_s(peer) - before_s) * 1e6 / seen.requests)
    found.http_per_s.append(seen.requests / seen.duration_s)


async def _sockets(peer: Peer, plan: Plan, found: Found) -> None:
    url = f"ws://127.0.0.1:{peer.port}/"
    before = pss_bytes({"server": peer.process.pid})["server"]
    idle = [await connect(url) for _ in range(plan.idle)]
    await asyncio.sleep(0.3)
    after = pss_bytes({"server": peer.process.pid})["server"]
    found.idle_kb.append((after - before) / plan.idle / 1000)
    for socket in idle:
        _transport(socket).abort()
    await _push(url, peer, plan.frames, found)
    await _echo(url, plan.seconds, found)
    found.large = await _large(url)
    found.on_sigterm = await _terminate(url, peer)


async def _push(url: str, peer: Peer, frames: int, found: Found) -> None:
    sockets, counts = await _counting(url, _SOCKETS)
    started_s, before_s = perf_counter(), _cpu_s(peer)
    for socket in sockets:
        socket.send(b"push %d %d" % (frames, FRAME_BYTES))
    await _until(lambda: sum(counts) == frames * _SOCKETS)
    taken_s = perf_counter() - started_s
    found.push_per_s.append(frames * _SOCKETS / taken_s)
    found.push_cpu_us.append((_cpu_s(peer) - before_s) * 1e6 / (frames * _SOCKETS))
    for socket in sockets:
        _transport(socket).abort()


async def _echo(url: str, seconds: float, found: Found) -> None:
    echoed, stop_at_s = 0, perf_counter() + seconds
    sockets: list[RawSocket] = []

    def again(socket: RawSocket) -> Callable[[int, bytes], None]:
        def on_frame(_: int, payload: bytes) -> None:
            nonlocal echoed
            echoed += 1
            if perf_counter() < stop_at_s:
                socket.send(payload)

        return on_frame

    for _ in range(_ECHO_SOCKETS):
        socket = await connect(url)
        socket.on_frame = again(socket)
        sockets.append(socket)
    for socket in sockets:
        socket.send(b"x" * FRAME_BYTES)
    await asyncio.sleep(seconds + 0.2)
    found.echo_per_s.append(echoed / seconds)
    for socket in sockets:
        _transport(socket).abort()


async def _large(url: str) -> str:
    """A message of 900 kB in and out, and twenty of them in a row."""
    sizes: list[int] = []
    socket = await connect(url, on_frame=lambda _, payload: sizes.append(len(payload)))
    socket.send(b"x" * _LARGE_BYTES)
    socket.send(b"push %d %d" % (_LARGE_FRAMES, _LARGE_BYTES))
    try:
        await _until(lambda: len(sizes) == _LARGE_FRAMES + 1, 10)
    except TimeoutError:
        return f"{len(sizes)} of {_LARGE_FRAMES + 1} came"
    finally:
        _transport(socket).abort()
    return "whole" if set(sizes) == {_LARGE_BYTES} else "cut"


async def _terminate(url: str, peer: Peer) -> str:
    """What an open socket is told when the server gets SIGTERM."""
    codes: list[str] = []

    def on_frame(first: int, payload: bytes) -> None:
        if first == CLOSE:
            codes.append(str(struct.unpack("!H", payload[:2])[0]) if payload else "1005")

    socket = await connect(url, on_frame=on_frame)
    peer.process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(10):
            await socket.ended
    except TimeoutError:
        return codes[0] if codes else "nothing for 10 s"
    return codes[0] if codes else "1006 (no close frame)"


async def _counting(url: str, number: int) -> tuple[list[RawSocket], list[int]]:
    counts = [0] * number

    def counter(index: int) -> Callable[[int, bytes], None]:
        def on_frame(_: int, __: bytes) -> None:
            counts[index] += 1

        return on_frame

    return [await connect(url, on_frame=counter(index)) for index in range(number)], counts


async def _until(reached: Callable[[], bool], timeout_s: float = _WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110  counters, at 500 looks a second
            await asyncio.sleep(0.002)


def _transport(socket: RawSocket) -> asyncio.Transport:
    assert socket.transport is not None
    return socket.transport


def _cpu_s(peer: Peer) -> float:
    return cpu_seconds({"server": peer.process.pid})["server"]


def _speeds(found: dict[str, Found]) -> Grid:
    columns = ("server", "HTTP/s", "µs CPU", "push frames/s", "µs CPU", "echo/s", "kB/idle socket")
    rows = [
        (
            name,
            f"{_median(one.http_per_s):,.0f}",
            f"{_median(one.http_cpu_us):.0f}",
            f"{_median(one.push_per_s):,.0f}",
            f"{_median(one.push_cpu_us):.1f}",
            f"{_median(one.echo_per_s):,.0f}",
            f"{_median(one.idle_kb):.0f}",
        )
        for name, one in found.items()
    ]
    return Grid(f"One worker, frames of {FRAME_BYTES} bytes, no compression", columns, tuple(rows))


def _manners(found: dict[str, Found]) -> Grid:
    rows = [(name, one.large, one.on_sigterm) for name, one in found.items()]
    columns = ("server", f"{_LARGE_FRAMES + 1} messages of {_LARGE_BYTES // 1000} kB", "on SIGTERM")
    return Grid("Manners", columns, tuple(rows))


def _figures(found: dict[str, Found]) -> dict[str, dict[str, float | str]]:
    return {
        name: {
            "http_per_s": _median(one.http_per_s),
            "http_cpu_us": _median(one.http_cpu_us),
            "push_frames_per_s": _median(one.push_per_s),
            "push_cpu_us": _median(one.push_cpu_us),
            "echo_per_s": _median(one.echo_per_s),
            "idle_socket_kb": _median(one.idle_kb),
            "large_messages": one.large,
            "on_sigterm": one.on_sigterm,
        }
        for name, one in found.items()
    }


def _median(values: list[float]) -> float:
    return statistics.median(values)
