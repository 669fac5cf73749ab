"""A TCP proxy: a network fault that no server has to die for.

It can be cut and mended on purpose, and with a `Chaos` it cuts, delays and throttles by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Chaos:
    """A bad network: what happens to each connection is drawn from `rng`."""

    rng: random.Random
    bytes_until_cut: tuple[int, int]
    """Each connection breaks, in both directions, after about so many bytes from the server."""
    slow_share: float = 0.2
    """How often a chunk is delayed, and passed on in little pieces."""
    longest_delay_s: float = 0.03
    piece_bytes: int = 300

    def budget(self) -> int:
        """After how many bytes a new connection breaks."""
        return self.rng.randint(*self.bytes_until_cut)

    async def disturb(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        """Pass a chunk on as a bad network does."""
        if self.rng.random() >= self.slow_share:
            writer.write(chunk)
            return
        await asyncio.sleep(self.rng.uniform(0, self.longest_delay_s))
        for start in range(0, len(chunk), self.piece_bytes):
            writer.write(chunk[start : start + self.piece_bytes])
            await writer.drain()
            await asyncio.sleep(self.rng.uniform(0, self.longest_delay_s / 10))


class TcpProxy:
    """Passes bytes both ways until it is cut; then it breaks connections and refuses new ones."""

    def __init__(self, host: str, port: int, chaos: Chaos | None = None) -> None:
        self._target = (host, port)
        self._chaos = chaos
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Where it listens, the same after every mending."""
        return self._port

    async def mend(self) -> None:
        """Listen (again)."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break what is open and refuse what comes."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.cut()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()  # nobody listens there: a killed process
            return
        self._writers |= {writer, there_writer}
        try:
            await asyncio.gather(
                self._pump(reader, there_writer), self._answer(there_reader, writer, there_writer)
            )
        finally:
            self._writers -= {writer, there_writer}

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        if self._chaos is None:
            await self._pump(reader, writer)
            return
        budget = self._chaos.budget()
        with contextlib.suppress(OSError):
            while budget > 0 and (chunk := await reader.read(min(budget, _CHUNK_BYTES))):
                budget -= len(chunk)
                await self._chaos.disturb(chunk, writer)
                await writer.drain()
        writer.transport.abort()
        there_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
