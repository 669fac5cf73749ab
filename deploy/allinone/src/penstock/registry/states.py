"""What the workers say of their models: one question, as many answers as there are workers."""

import asyncio

from nats.aio.msg import Msg
from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.models import WorkerModels
from penstock_shared.runtime.broker import Broker

# Nobody knows how many will answer, so the silence after the last one ends the listening.
_FIRST_ANSWER_S = 1.0
_SILENCE_S = 0.3


async def ask_workers(broker: Broker) -> list[WorkerModels]:
    """Every worker's answer, by instance; empty when none runs."""
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = broker.client.new_inbox()
    subscription = await broker.client.subscribe(inbox, cb=answers.put)
    await broker.client.publish(subjects.models_state(), b"", reply=inbox)
    heard: dict[str, WorkerModels] = {}
    wait_s = _FIRST_ANSWER_S
    while True:
        try:
            async with asyncio.timeout(wait_s):
                message = await answers.get()
        except TimeoutError:
            break
        wait_s = _SILENCE_S
        if (said := _parse(message.data)) is not None:
            heard[said.instance] = said
        elif message.headers:  # "no responders"
            break
    await subscription.unsubscribe()
    return [heard[instance] for instance in sorted(heard)]


def _parse(data: bytes) -> WorkerModels | None:
    try:
        return WorkerModels.model_validate_json(data)
    except ValidationError:
        return None
