"""Disconnects the NATS clients of those who may not go on, through the system account.

Source: NATS docs, "System events & decentralized JWT": `$SYS.REQ.SERVER.PING.CONNZ` asks every
server for its connections, `$SYS.REQ.SERVER.<id>.KICK` ends one. A user JWT carries tenant and
key id as its name, which CONNZ shows as `authorized_user` when asked with `auth` (seen on 2.15.1).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

import nats.errors

from penstock_realtime import metrics
from penstock_realtime.adapters.nats_auth import parse_user_name
from penstock_realtime.serving.revocation import Revoked
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.telemetry import log

_PAGE: Final = 1024
_ANSWERS_WITHIN_S: Final = 0.25
_KICKED_WITHIN_S: Final = 1.0
_SECOND_LOOK_S: Final = 1.0
"""A login that was granted just before the revocation shows up a little later."""
_LOOK_AGAIN_S: Final = 2.0
_MORE_LOOKS: Final = 150
"""For five minutes, while no server answers: nothing else would ever end these connections."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One client connection of one server."""

    server_id: str
    cid: int
    user: str


def parse_connz(raw: bytes) -> tuple[list[Connection], bool]:
    """The connections in one server's answer, and whether there are more pages."""
    answer: dict[str, Any] = json.loads(raw)
    data = answer.get("data", {})
    server_id = str(data.get("server_id", ""))
    found = [
        Connection(server_id, int(c["cid"]), str(c["authorized_user"]))
        for c in data.get("connections", ())
        if c.get("authorized_user")
    ]
    return found, data.get("offset", 0) + data.get("num_connections", 0) < data.get("total", 0)


class NatsDisconnector:
    """Cuts connections on every server."""

    def __init__(self, system: Broker, account: str) -> None:
        self._system = system
        self._account = account

    async def disconnect(self, revoked: Revoked) -> None:
        """End every connection of these callers; looks twice, and again until servers answer."""
        for pause_s in (0.0, _SECOND_LOOK_S, *(_LOOK_AGAIN_S,) * _MORE_LOOKS):
            await asyncio.sleep(pause_s)
            try:
                await self._kick_all(revoked)
            except (nats.errors.Error, OSError, ValueError) as error:
                log().warning("nats.kick_failed", kind=type(error).__name__)
            else:
                if pause_s:
                    return

    async def _kick_all(self, revoked: Revoked) -> None:
        for connection in await self._connections():
            if revoked.covers(*parse_user_name(connection.user)):
                # A request: the server ignores the command when it names no reply.
                await self._system.client.request(
                    f"$SYS.REQ.SERVER.{connection.server_id}.KICK",
                    json.dumps({"cid": connection.cid}).encode(),
                    timeout=_KICKED_WITHIN_S,
                )
                metrics.KICKED.labels("nats").inc()
                log().info("nats.kicked", user=connection.user, cid=connection.cid)

    async def _connections(self) -> list[Connection]:
        found: list[Connection] = []
        offset, more = 0, True
        while more:
            more = False
            answers = await self._ask(offset)
            if not answers:
                raise nats.errors.TimeoutError
            for raw in answers:
                page, unfinished = parse_connz(raw)
                found += page
                more = more or unfinished
            offset += _PAGE
        return found

    async def _ask(self, offset: int) -> list[bytes]:
        """Every server's answer: how many there are is not known, so wait a fixed time."""
        client = self._system.client
        inbox = client.new_inbox()
        answers: list[bytes] = []
        subscription = await client.subscribe(inbox)
        query = {"auth": True, "acc": self._account, "limit": _PAGE, "offset": offset}
        await client.publish("$SYS.REQ.SERVER.PING.CONNZ", json.dumps(query).encode(), reply=inbox)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                while True:
                    answers.append((await subscription.next_msg(timeout=None)).data)
        except TimeoutError:
            return answers
        finally:
            await subscription.unsubscribe()
