"""A router that is told to stop, with questions on their way to it."""

from __future__ import annotations

import asyncio
import time

from nats.aio.msg import Msg
from tests.support.router import IDS, StartRouter, count

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import Accepted, AdmissionReply
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker

QUESTIONS = 100


async def test_what_the_broker_has_passed_on_is_answered(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """Nobody waits in vain because the router that was asked has been told to stop."""
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = broker.client.new_inbox()
    await broker.client.listen(inbox, answers.put_nowait)
    async with start_router():
        for _ in range(QUESTIONS):
            asked = Envelope(id=IDS.new(), source="/client", type="penstock.request.submit.v1")
            await broker.client.publish(
                subjects.submit("acme"), b'{"input":"hi"}', inbox, asked.headers()
            )
        await asyncio.sleep(0)  # they are written
        time.sleep(0.1)  # noqa: ASYNC251  passed on by the server, and not read here
    async with asyncio.timeout(5):
        for _ in range(QUESTIONS):
            reply = AdmissionReply.model_validate_json((await answers.get()).data).reply
            assert isinstance(reply, Accepted)
    assert await count(broker, EVENTS) == QUESTIONS
