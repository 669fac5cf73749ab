"""The other instances, over core NATS: what they miss, they learn from the store a little later."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import nats.errors
from nats.aio.msg import Msg

from penstock_realtime.ports import SessionState
from penstock_shared.contracts import subjects
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.telemetry import log

_ANSWERS_WITHIN_S: Final = 2.0


class NatsPeers:
    """`Peers` over NATS."""

    def __init__(self, broker: Broker, instance: str) -> None:
        self._broker = broker
        self._instance = instance

    async def listen(self, on_taken: Callable[[SessionState], None]) -> None:
        """Hear who takes sessions over, and answer for this instance."""

        async def taken(msg: Msg) -> None:
            try:
                on_taken(SessionState(**json.loads(msg.data), policy="", responses={}))
            except (TypeError, ValueError):
                log().error("session_taken.unreadable")

        async def alive(msg: Msg) -> None:
            await msg.respond(b"")

        client = self._broker.client
        await client.subscribe(subjects.session_taken(), cb=taken)
        await client.subscribe(subjects.instance_alive(self._instance), cb=alive)

    async def tell_taken(self, state: SessionState) -> None:
        """Tell whoever held this session in an earlier term; nobody may hear it."""
        told = {
            "tenant": state.tenant,
            "session_id": state.session_id,
            "holder": state.holder,
            "term": state.term,
        }
        try:
            await self._broker.publish_core(subjects.session_taken(), json.dumps(told).encode())
        except (nats.errors.Error, OSError) as error:
            log().warning("session_taken.not_told", kind=type(error).__name__)

    async def answers(self, instance: str) -> bool:
        """Whether an instance lives; yes, while the broker is away."""
        try:
            await self._broker.client.request(
                subjects.instance_alive(instance), b"", timeout=_ANSWERS_WITHIN_S
            )
        except (nats.errors.Error, TimeoutError, OSError):
            # Nobody serves its subject, or it is frozen.
            return not self._broker.is_connected
        return True
