"""uvicorn inside a service: the service owns the signals and the loop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from penstock_shared.contracts.errors import UnavailableError

_FILES: Final = 65_536


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The lifecycle handles signals: a drain comes before any socket is closed."""
        yield


class HttpServer:
    """One listening address. `port` 0 takes a free one.

    `send_buffer_bytes` bounds what the kernel holds for one connection (SO_SNDBUF; Linux doubles
    it). Left alone it grows to megabytes before a client that does not read is noticed. One that
    takes none of it for `unread_timeout_s` loses its connection (TCP_USER_TIMEOUT, where there is
    such a thing): closing one waits until everything is read, for ever if it never is.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        send_buffer_bytes: int | None = None,
        unread_timeout_s: float | None = None,
        **options: Any,
    ) -> None:
        self._host, self._port = host, port
        self._send_buffer_bytes = send_buffer_bytes
        self._unread_timeout_s = unread_timeout_s
        self._config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False, **options
        )
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            UnavailableError: the port is taken.
        """
        _allow_many_files()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # With its protocol said: asyncio's own loop leaves Nagle's algorithm on otherwise.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._send_buffer_bytes is not None:  # accepted connections inherit it (socket(7))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        if self._unread_timeout_s is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(self._unread_timeout_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        try:
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            msg = f"Port {self._port} is in use: choose another, or 0 for any free one."
            raise UnavailableError(msg, code="port_in_use") from error
        self._port = int(listener.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # uvicorn tells by an attribute, not by an event

    def stop_accepting(self) -> None:
        """Refuse new connections; those that are open go on. A drain begins with it."""
        for server in self._server.servers:
            server.close()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stop listening; open connections get `grace_s` to finish."""
        if self._task is None:
            return
        self._server.should_exit = True
        try:
            await asyncio.wait_for(asyncio.shield(self._task), grace_s)
        except TimeoutError:
            self._server.force_exit = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, 1.0)


def _allow_many_files() -> None:
    """A connection is a file. The usual soft limit of 1,024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
