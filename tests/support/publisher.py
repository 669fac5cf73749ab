"""What a service needs to follow its request over NATS through any loss of its connection."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

RUN_NUMBERS = 1 << 20
"""As services/realtime/README.md states it: a delta with such a number begins the text anew."""


@dataclass
class Answer:
    """The text of one request, from frames that come live or replayed, in any order, repeatedly."""

    text: str = ""
    last: int = -1
    """The number of the last delta in `text`."""
    final: dict[str, Any] | None = None
    told: list[str] = field(default_factory=list)
    """What `text` was after each delta."""

    def take(self, frame: dict[str, Any]) -> bool:
        """Add one frame; False when one before it is missing."""
        if frame["t"] == "final":
            self.final = frame
        elif frame["n"] > self.last:
            if frame["n"] % RUN_NUMBERS and frame["n"] != self.last + 1:
                return False
            begin = self.text if frame["n"] % RUN_NUMBERS else ""
            self.text, self.last = begin + frame["delta"], frame["n"]
            self.told.append(self.text)
        return True


async def ask(client: Client, tenant: str, request_id: str, after: int) -> dict[str, Any]:
    """`requests.get`, with what is kept of the deltas after a number."""
    question = json.dumps({"request_id": request_id, "after_delta": after}).encode()
    reply = await client.request(f"v1.{tenant}.requests.get", question, timeout=5)
    found: dict[str, Any] = json.loads(reply.data)
    return found


async def catch_up(client: Client, tenant: str, request_id: str, answer: Answer) -> None:
    """Ask until nothing more is kept."""
    more = True
    while more and answer.final is None:
        state = await ask(client, tenant, request_id, answer.last)
        for frame in state["deltas"]:
            answer.take(frame)
        if state["final"] is not None:
            answer.take(state["final"])
        more = state["more"]


async def follow(client: Client, tenant: str, request_id: str, answer: Answer) -> None:
    """Follow to the end, or until the connection is lost: then again, with another client.

    Subscribe first and ask then: what is published in between comes twice rather than never.
    """
    frames: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(msg: Any) -> None:
        frames.put_nowait(msg.data)

    await client.subscribe(f"v1.{tenant}.responses.{request_id}", cb=hear)
    await client.flush()
    await catch_up(client, tenant, request_id, answer)
    while answer.final is None:
        if not answer.take(json.loads(await frames.get())):
            await catch_up(client, tenant, request_id, answer)
