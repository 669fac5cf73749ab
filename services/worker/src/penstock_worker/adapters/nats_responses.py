"""Frames through core NATS; RESPONSES keeps a short memory of them."""

from __future__ import annotations

import nats.errors

from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.responses import FinalFrame, encode_delta
from penstock_shared.runtime.broker import Broker
from penstock_worker import metrics


class NatsResponses:
    """`ResponseSink` on NATS. While the server is away frames wait in the client, up to a bound."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def delta(self, subject: str, attempt: int, run: str, n: int, text: str) -> None:
        """One delta. Lost if the client's buffer is full: the terminal fact repairs it (I6)."""
        await self._publish(subject, encode_delta(attempt, run, n, text))

    async def final(self, subject: str, ended: RequestEnded, text: str) -> None:
        """The final frame."""
        frame = FinalFrame.from_terminal(ended, text)
        await self._publish(subject, frame.model_dump_json().encode())

    async def _publish(self, subject: str, frame: bytes) -> None:
        try:
            await self._broker.publish_core(subject, frame)
        except nats.errors.Error:
            metrics.DELTAS_LOST.inc()
