"""Reading the consumers when the server does not answer, or answers about something that moves."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from penstock_router.adapters.queue_poll import QueuePoll
from penstock_router.domain.queue_load import QueueLoad
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock

DURABLE = job_consumer("small", Lane.STANDARD).durable


class ScriptedBroker:
    """Answers the list's question as `answer` says, by offset; None is no answer."""

    def __init__(self, answer: Callable[[int], dict[str, Any] | None]) -> None:
        self.answer = answer
        self.asked: list[int] = []

    async def request(self, _: str, payload: bytes, **__: object) -> SimpleNamespace:
        self.asked.append(json.loads(payload)["offset"])
        answer = self.answer(self.asked[-1])
        if answer is None or len(self.asked) > 10:
            raise UnavailableError("no answer", code="nats_unavailable")
        return SimpleNamespace(data=json.dumps(answer))


class Time:
    """A clock that is set by hand."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


def listed(*names: str, total: int) -> dict[str, Any]:
    figures = {"num_pending": 7, "num_ack_pending": 0, "delivered": {"consumer_seq": 0}}
    return {"total": total, "consumers": [{"name": name, **figures} for name in names]}


def poll_of(
    broker: ScriptedBroker, loads: defaultdict[str, QueueLoad], time: Time | None = None
) -> QueuePoll:
    clock = cast("Clock", time or Time())
    return QueuePoll(cast("Broker", broker), loads, lambda: ["small"], clock)


async def test_an_old_reading_is_forgotten() -> None:
    """A depth that only admissions change would grow until everything is refused for ever."""
    broker, time = ScriptedBroker(lambda _: listed(DURABLE, total=1)), Time()
    loads: defaultdict[str, QueueLoad] = defaultdict(QueueLoad)
    poll = poll_of(broker, loads, time)
    await poll.look()
    assert loads["small"].depth == 7
    broker.answer = lambda _: None
    time.now_s = 5.0
    await poll.look()
    assert loads["small"].depth == 7, "one that fails, or a few, leave what is known"
    time.now_s = 30.0
    await poll.look()
    assert loads["small"].depth == 0


async def test_a_list_that_shifts_between_its_pages_is_read_to_its_end() -> None:
    """A consumer that is made in front of the second page shows the first one's last again."""
    pages = {0: listed("a", "b", total=3), 2: listed("b", total=4), 3: listed("c", total=4)}
    broker = ScriptedBroker(pages.get)
    readings = await poll_of(broker, defaultdict(QueueLoad))._readings()
    assert set(readings) == {"a", "b", "c"}
    assert broker.asked == [0, 2, 3]
