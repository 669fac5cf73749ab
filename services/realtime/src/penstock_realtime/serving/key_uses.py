"""When each API key was last used: gathered here, reported once a minute, best effort."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import islice
from typing import Final

from penstock_realtime.ports import AccountDesk
from penstock_shared.contracts.account_commands import (
    MAX_USES_PER_REPORT,
    KeyUse,
    KeyUseNoted,
    ReportKeyUse,
)
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_REPORT_EVERY_S: Final = 60.0


class KeyUses:
    """What has been used since the last report. A crash loses at most a minute of it."""

    def __init__(self, desk: AccountDesk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._latest: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """The key let somebody in just now."""
        self._latest[key_id] = self._clock.now()

    async def run(self) -> None:
        """Report for ever."""
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            await self.report()

    async def report(self) -> None:
        """Tell billing all that was noted; what it does not hear now it hears the next time."""
        while batch := dict(islice(self._latest.items(), MAX_USES_PER_REPORT)):
            uses = tuple(KeyUse(key_id=key_id, at=at) for key_id, at in batch.items())
            try:
                await self._desk.ask("report-key-use", ReportKeyUse(uses=uses), KeyUseNoted)
            except PenstockError as error:
                log().warning("key_uses.not_reported", code=error.code, keys=len(self._latest))
                return
            for key_id, at in batch.items():
                if self._latest[key_id] == at:  # else it was used again meanwhile
                    del self._latest[key_id]
            if len(batch) < MAX_USES_PER_REPORT:
                return
