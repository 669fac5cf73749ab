"""What clients were shown of a request, as its next holder reads it back (I6)."""

from __future__ import annotations

import asyncio

import pytest

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.responses import encode_delta
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_worker.adapters import nats_delivered
from penstock_worker.adapters.nats_delivered import NatsDeliveredFrames

_IDS = IdSource(SystemClock())
_FIRST, _SECOND = _IDS.new(), _IDS.new()


async def publish(broker: Broker, frames: list[bytes]) -> str:
    """Frames of one request; another's lie between them."""
    subject, other = (subjects.responses("acme", _IDS.new()) for _ in range(2))
    for frame in frames:
        await broker.publish_core(subject, frame)
        await broker.publish_core(other, encode_delta(1, _FIRST, 0, "someone else's"))
    await broker.flush()
    return subject


async def test_the_text_of_a_run_that_died(broker: Broker):
    """All that was published, in whole characters, whatever characters they are."""
    pieces = ["Hé", ' "quoted"', "\n🙂", " end"]
    frames = [encode_delta(1, _FIRST, n, piece) for n, piece in enumerate(pieces)]
    subject = await publish(broker, frames)
    assert (await NatsDeliveredFrames(broker).delivered(subject, 1)).text == "".join(pieces)


async def test_a_gap_ends_it(broker: Broker):
    """What came after a lost delta was not shown in its place."""
    frames = [encode_delta(1, _FIRST, n, str(n)) for n in (0, 1, 3, 4)]
    subject = await publish(broker, frames)
    assert (await NatsDeliveredFrames(broker).delivered(subject, 1)).text == "01"


async def test_another_attempt_is_another_answer(broker: Broker):
    """An escalated request starts anew: the first attempt's text is none of the second's."""
    subject = await publish(broker, [encode_delta(1, _FIRST, 0, "weak")])
    assert (await NatsDeliveredFrames(broker).delivered(subject, 2)).text == ""


async def test_the_longest_of_the_runs_that_follow_one_another(broker: Broker):
    """A second run that began with the first's text, and died, too, counts with all it added."""
    frames = [encode_delta(1, _FIRST, 0, "ab"), encode_delta(1, _FIRST, 1, "c")]
    frames += [encode_delta(1, _SECOND, 0, "abc"), encode_delta(1, _SECOND, 1, "d")]
    subject = await publish(broker, frames)
    assert (await NatsDeliveredFrames(broker).delivered(subject, 1)).text == "abcd"


async def test_a_run_that_parted_ways_counts_for_nothing(broker: Broker):
    """However long it got: clients stayed with what they had."""
    frames = [encode_delta(1, _FIRST, 0, "ab"), encode_delta(1, _SECOND, 0, "ax and much more")]
    subject = await publish(broker, frames)
    assert (await NatsDeliveredFrames(broker).delivered(subject, 1)).text == "ab"


async def test_nothing_is_kept_of_a_request_or_of_any(broker: Broker):
    """Expired frames, and a stream that a server restart has taken: the run starts anew."""
    frames = NatsDeliveredFrames(broker)
    assert (await frames.delivered(subjects.responses("acme", _IDS.new()), 1)).text == ""
    await broker.jetstream.delete_stream(RESPONSES)
    assert (await frames.delivered(subjects.responses("acme", _IDS.new()), 1)).text == ""


async def test_reading_leaves_nothing_behind(broker: Broker):
    """No consumer on the server, no hook in the connection: redeliveries may be many."""
    subject = await publish(broker, [encode_delta(1, _FIRST, n, "x") for n in range(5)])
    hooks = len(broker._hooks)
    frames = NatsDeliveredFrames(broker)
    texts = await asyncio.gather(*(frames.delivered(subject, 1) for _ in range(20)))
    assert [one.text for one in texts] == ["xxxxx"] * 20
    assert len(broker._hooks) == hooks
    assert await broker.jetstream.consumers_info(RESPONSES) == []


async def test_a_read_that_stalls_is_given_up(broker: Broker, monkeypatch: pytest.MonkeyPatch):
    """Later, by the job's next holder: a run that forgot what was shown could contradict it."""
    subject = await publish(broker, [encode_delta(1, _FIRST, 0, "x")])
    monkeypatch.setattr(nats_delivered, "_READ_TIMEOUT_S", 0.0)
    with pytest.raises(UnavailableError):
        await NatsDeliveredFrames(broker).delivered(subject, 1)
