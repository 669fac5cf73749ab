"""CONTROL in memory: which requests were cancelled, now and before we asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.responses import Cancel
from penstock_shared.contracts.streams import CONTROL
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.telemetry import log

_REMEMBERED: Final = 200_000
"""Above this the oldest are forgotten: about 40 MB; CONTROL itself forgets after an hour."""


class ControlCancellations:
    """A fold over CONTROL. Keys hold the tenant: nobody cancels another's request (I8)."""

    def __init__(self, broker: Broker, *, remembered: int = _REMEMBERED) -> None:
        self._reader = OrderedReader(broker, CONTROL, subjects.EVERY_CONTROL, last_per_subject=True)
        self._remembered = remembered
        self._cancelled: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._watchers: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there, then follow: a job pulled after this knows its cancellation."""
        await self._reader.start()
        for _ in range(self._reader.pending_at_start):
            self._apply(await self._reader.get())
        self._task = asyncio.create_task(self._follow(), name="cancellations")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._reader.stop()

    def cancelled(self, tenant: str, request_id: str) -> bool:
        """Whether the tenant has cancelled this request of its own."""
        return (tenant, request_id) in self._cancelled

    @contextlib.contextmanager
    def watching(self, tenant: str, request_id: str, notify: Callable[[], None]) -> Iterator[None]:
        """Call `notify` if the request is cancelled meanwhile."""
        key = (tenant, request_id)
        watchers = self._watchers.setdefault(key, [])
        watchers.append(notify)
        try:
            yield
        finally:
            watchers.remove(notify)
            if not watchers:
                self._watchers.pop(key, None)

    async def _follow(self) -> None:
        while True:
            self._apply(await self._reader.get())

    def _apply(self, message: StoredMessage) -> None:
        try:
            parsed = subjects.parse(message.subject)
            request_id = parse_request_id(parsed.rest[0])
            Cancel.model_validate_json(message.data)
        except (PermanentError, ValidationError, IndexError):  # tenants publish here themselves
            log().info("control.unreadable", sequence=message.sequence)
            return
        key = (parsed.tenant, request_id)
        self._cancelled[key] = None
        if len(self._cancelled) > self._remembered:
            self._cancelled.popitem(last=False)
        for notify in tuple(self._watchers.get(key, ())):
            notify()
