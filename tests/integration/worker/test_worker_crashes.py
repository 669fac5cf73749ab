"""A job's crashes, told from its hand-backs by what its holders left behind (I2)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.support.job_line import JobLine, die, give_back
from tests.support.worker_rig import seeded

from penstock_shared.contracts.errors import (
    POISON_AFTER_DELIVERIES,
    PenstockError,
    TransientError,
    UnavailableError,
)
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.settlement import settle
from penstock_worker.adapters.nats_returns import NatsReturns


async def test_a_first_delivery_costs_nothing(broker: Broker):
    """Nearly every job is delivered once: nothing is read or written for it."""
    async with JobLine(broker) as line:
        await line.publish()
        delivery = await line.take()
        assert await NatsReturns(broker).crashes(delivery) == 0
        assert await line.counted(delivery) is None
        await delivery.ack()


async def test_holders_that_die_are_counted(broker: Broker):
    """The second holder hears of one crash, the third of two, the fourth of three."""
    async with JobLine(broker) as line:
        await line.publish()
        for died in range(POISON_AFTER_DELIVERIES + 1):
            delivery = await line.take()
            assert await NatsReturns(broker).crashes(delivery) == died
            await die(delivery)


async def test_holders_that_hand_back_are_not(broker: Broker):
    """Ten draining workers in a row make no poison."""
    async with JobLine(broker) as line:
        await line.publish()
        for _ in range(10):
            delivery, returns = await line.take(), NatsReturns(broker)
            assert await returns.crashes(delivery) == 0
            await give_back(returns, delivery)


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_counts_the_crashes_alone(broker: Broker, seed: int):
    """Deaths, hand-backs, and deaths before the job was looked at, in any order (seeded).

    A first holder that never looked is the exception: it cannot be told from one that did.
    """
    rng, died = seeded(seed), 0
    async with JobLine(broker) as line:
        await line.publish()
        for nth in range(12):
            delivery, returns = await line.take(), NatsReturns(broker)
            fate = rng.choice(("died", "lived", "unseen"))
            if fate != "unseen" or nth == 0:
                assert await returns.crashes(delivery) == died
                if died == POISON_AFTER_DELIVERIES:
                    return
            if fate == "lived":
                await give_back(returns, delivery)
            else:
                died += fate == "died" or nth == 0
                await die(delivery)


async def test_a_drain_notes_what_it_hands_back_untaken(broker: Broker):
    """Jobs that only lay in a leaving worker's buffer are as innocent as before."""
    returns = NatsReturns(broker)
    async with JobLine(broker, before_hand_back=returns) as leaving:
        for _ in range(3):
            await leaving.publish()
        await leaving.held(3)
    async with JobLine(broker) as line:
        for _ in range(3):
            delivery = await line.take()
            assert (delivery.deliveries, await NatsReturns(broker).crashes(delivery)) == (2, 0)
            await delivery.ack()


async def test_a_holder_that_was_only_stopped_takes_its_charge_back(broker: Broker):
    """A worker taken for dead wakes up and hands back: its successor's charge stays."""
    async with JobLine(broker) as line:
        await line.publish()
        asleep, first = await line.take(), NatsReturns(broker)
        await die(asleep)
        delivery, second = await line.take(), NatsReturns(broker)
        assert await second.crashes(delivery) == 1
        assert await line.counted(delivery) == 2
        await first.note(asleep)
        assert await line.counted(delivery) == 1
        await second.note(delivery)
        assert await line.counted(delivery) == 0
        await delivery.ack()


async def on_their_last_life(line: JobLine, count: int) -> list[Delivery]:
    """Jobs on which two holders have died, in their third holders' hands, unopened."""
    for _ in range(count):
        await line.publish()
    for _ in range(2):
        for delivery in [await line.take() for _ in range(count)]:
            await NatsReturns(line.broker).crashes(delivery)
            await die(delivery)
    return [await line.take() for _ in range(count)]


async def test_on_their_last_life_suspects_run_one_at_a_time(broker: Broker):
    """Whoever ran beside the killer by chance must not be given up for it."""
    async with JobLine(broker) as line:
        killer, neighbour = await on_their_last_life(line, 2)
        process = NatsReturns(broker)
        assert await process.crashes(killer) == 2
        with pytest.raises(TransientError) as refused:
            await process.crashes(neighbour)
        assert refused.value.code == "suspect_waits"
        await process.note(neighbour)  # as settlement does: it was not charged for this holder
        assert await line.counted(neighbour) == 2
        await killer.ack()
        assert await process.crashes(neighbour) == 2
        await neighbour.ack()


async def test_after_one_crash_suspects_run_side_by_side(broker: Broker):
    """A killed machine's jobs are not made to queue up behind one another."""
    async with JobLine(broker) as line:
        for _ in range(3):
            await line.publish()
        for delivery in [await line.take() for _ in range(3)]:
            await die(delivery)
        process = NatsReturns(broker)
        held = [await line.take() for _ in range(3)]
        assert await asyncio.gather(*map(process.crashes, held)) == [1, 1, 1]
        for delivery in held:
            await delivery.ack()


class SilentBroker(Broker):
    """Publishes and gets are not answered; what needs no answer passes."""

    async def publish(self, *_: Any, **__: Any) -> int:
        raise UnavailableError("Nothing is heard.")

    async def last_message(self, *_: Any, **__: Any) -> None:
        raise UnavailableError("Nothing is heard.")


async def test_a_bucket_that_is_away_keeps_nobody_from_handing_back(broker: Broker):
    """The nak goes out without the note; the job has lost one life, and nothing else."""
    deaf = NatsReturns(SilentBroker(broker.client))
    async with JobLine(broker, before_hand_back=deaf) as line:
        await line.publish()
        delivery = await line.take()
        await delivery.nak(0.001)
        again = await line.take()
        with pytest.raises(TransientError):  # and nobody opens a job without being charged
            await deaf.crashes(again)
        assert await NatsReturns(broker).crashes(again) == 1
        await again.ack()


async def test_settlement_counts_failures_and_forgives_the_rest(broker: Broker):
    """Six transient errors and two bugs are no poison; the third bug is."""
    returns, rejected = NatsReturns(broker), []
    rng = random.Random(1)
    rng.uniform = lambda *_: 0.001  # type: ignore[method-assign]

    async def reject(_: Delivery, error: PenstockError) -> None:
        rejected.append(error.code)

    async with JobLine(broker, before_hand_back=returns) as line:
        await line.publish()
        for nth in range(1, 10):
            error = RuntimeError("bug") if nth % 3 == 0 else TransientError("later")

            async def handle(delivery: Delivery, error: Exception = error) -> None:
                await returns.crashes(delivery)
                raise error

            assert rejected == []
            await settle(await line.take(), handle, reject, rng)
        assert rejected == ["poison"]
