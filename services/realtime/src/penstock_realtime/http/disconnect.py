"""Noticing that the client of a request has gone."""

from __future__ import annotations

import asyncio
from typing import Self

from starlette.types import Receive

from penstock_realtime.serving.following import Following


class DisconnectWatch:
    """Inside its `with`, `following` is closed once the client's connection is.

    ASGI tells of that only through `receive`, which needs a task of its own (15 µs a request).
    An answer that comes within `patience_s` goes without; a client that left is noticed then.
    """

    def __init__(self, receive: Receive, following: Following, patience_s: float = 0.0) -> None:
        self._receive = receive
        self._following = following
        self._patience_s = patience_s
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="disconnect")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        await self._following.close()
