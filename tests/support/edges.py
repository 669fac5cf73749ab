"""Several edges on one backend: in this process, and as processes that can be killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.support.realtime import Account, add_account
from tests.support.realtime_backend import PRICE, Backend

from penstock_realtime.app import App, create_app
from penstock_realtime.settings import Settings
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketStore, put

_STARTS_WITHIN_S = 60


class EdgeProcess:
    """`python -m penstock_realtime`, on a port of its own."""

    def __init__(self, settings: dict[str, Any], log_file: Path) -> None:
        self.port = _free_port()
        self._log_file = log_file
        given = {**settings, "http_port": self.port}
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        self._environ |= {f"PENSTOCK_{key.upper()}": str(value) for key, value in given.items()}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns once it listens, and so once it is ready."""
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "penstock_realtime", env=self._environ, stderr=log
            )
        async with asyncio.timeout(_STARTS_WITHIN_S):
            while not await _listens(self.port):
                assert self._process.returncode is None, self._log_file.read_text()[-4000:]
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def listens(self) -> bool:
        """Whether it takes connections."""
        return await _listens(self.port)

    def signal(self, number: int) -> None:
        """Any signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), _STARTS_WITHIN_S)

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()


class Edges:
    """A backend, an account, and the edges in front of them."""

    def __init__(self, broker: Broker, nats_url: str, redis_url: str, directory: Path) -> None:
        self.broker = broker
        self._settings = {"nats_url": nats_url, "redis_url": redis_url}
        self._directory = directory
        self._closing = AsyncExitStack()
        self.backend: Backend
        self.account: Account

    async def __aenter__(self) -> Self:
        await _answers(self._settings["redis_url"])
        root_key = os.urandom(32)
        key_file = self._directory / "root.key"
        key_file.write_text(base64.b64encode(root_key).decode())
        self._settings["root_key_file"] = str(key_file)
        model = ModelRecord(
            name="echo", version="1", parameters=0, context_tokens=4096, price=PRICE
        )
        await put(self.broker, Bucket.MODELS, "echo", model.model_dump_json().encode())
        # Limits and sessions live in Redis, which outlives the test: a tenant of its own each time.
        self.account = await add_account(self.broker, f"t{os.urandom(4).hex()}")
        behind = await Broker.connect(self._settings["nats_url"], name="test-backend")
        self._closing.push_async_callback(behind.close)
        keyring = Keyring(root_key, BucketStore(behind, Bucket.DATA_KEYS), SystemClock())
        self.backend = Backend(behind, keyring)
        await self.backend.start()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def start(self, **given: Any) -> App:
        """An edge in this process."""
        app = create_app(Settings(**{"http_port": 0, **self._settings, **given}))
        self._closing.push_async_callback(app.stop)
        await app.start()
        return app

    async def start_process(self, **given: Any) -> EdgeProcess:
        """An edge in a process of its own."""
        log_file = self._directory / f"edge-{os.urandom(3).hex()}.log"
        edge = EdgeProcess({**self._settings, **given}, log_file)
        self._closing.push_async_callback(edge.stop)
        await edge.start()
        return edge


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _answers(redis_url: str) -> None:
    """Wait for a Redis that the test before this one may have killed."""
    async with Redis.from_url(redis_url) as redis, asyncio.timeout(_STARTS_WITHIN_S):
        while True:
            with contextlib.suppress(RedisError, OSError):
                await redis.ping()
                return
            await asyncio.sleep(0.05)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
