"""Questions and their answers over the bus."""

from __future__ import annotations

from nats.aio.msg import Msg
from pydantic import BaseModel

from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.replies import ReplyServer


class _Answer(BaseModel):
    text: str


async def test_an_answer_that_no_message_holds_is_refused(broker: Broker) -> None:
    """Whoever asks is told so at once, and the next question is answered on the same connection."""
    replies = ReplyServer(broker, "group")

    async def answer(msg: Msg) -> BaseModel:
        return _Answer(text="x" * int(msg.data))

    await replies.serve("v1.platform.test.size", answer)
    refused = await broker.client.request("v1.platform.test.size", b"1048577", timeout=5)
    assert ErrorReply.model_validate_json(refused.data).error.code == "answer_too_large"
    told = await broker.client.request("v1.platform.test.size", b"1000000", timeout=5)
    assert len(_Answer.model_validate_json(told.data).text) == 1_000_000
    await replies.drain()
