"""Slots, hand-over and failures of one model's runner, with the echo engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import RequestEnded, Sampling
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.domain.ending import Run
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.errors import EngineError, HandedBackError
from penstock_worker.handlers.runner import ModelRunner, Ticket
from penstock_worker.ports import BatchObserver, SamplingOptions

_IDS = IdSource(SystemClock())


class Frames:
    """Keeps the deltas of each run."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    async def delta(self, subject: str, attempt: int, run: str, n: int, text: str) -> None:
        assert (subject, attempt) == ("s", 1)
        texts = self.texts.setdefault(run, [])
        assert n == len(texts)
        texts.append(text)

    async def final(self, subject: str, ended: RequestEnded, text: str) -> None:
        raise AssertionError((subject, ended, text))  # the runner never ends a request


class CountingEngine(EchoEngine):
    """Notes the batches it was given; fails on the word "boom"."""

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        super().__init__(slots=2, max_batch=4, tokens_per_s=tokens_per_s)
        self.batches: list[list[list[str]]] = []

    def generate(
        self,
        prompts: list[list[str]],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        self.batches.append(prompts)
        if ["boom"] in prompts:
            raise RuntimeError("out of memory, or worse")
        super().generate(prompts, options, max_tokens, observer)


Runners = Callable[..., tuple[ModelRunner, CountingEngine, Frames]]


@pytest.fixture
async def runners() -> AsyncIterator[Runners]:
    made: list[ModelRunner] = []

    def make(tokens_per_s: float = 0.0) -> tuple[ModelRunner, CountingEngine, Frames]:
        engine, frames = CountingEngine(tokens_per_s), Frames()
        runner = ModelRunner(
            "echo", engine, frames, SystemClock(), batch_window_s=0.001, delta_interval_s=0.01
        )
        made.append(runner)
        return runner, engine, frames

    yield make
    for runner in made:
        await runner.stop()


def run_of(engine: EchoEngine, text: str, *, alone: bool = False) -> Run:
    now = datetime.now(UTC)
    job = Job(
        request_id=_IDS.new(),
        tenant="acme",
        key_id="k",
        data_subject="u",
        model="echo",
        lane=Lane.STANDARD,
        attempt=1,
        expected_seq=1,
        price=Price(input_microusd_per_1k=0, output_microusd_per_1k=0),
        sampling=Sampling(),
        content="",
        routed_at=now,
        deadline=now + timedelta(seconds=60),
    )
    generation = Generation(
        prompt=text.split(" "),
        options=SamplingOptions(),
        lane=Lane.STANDARD,
        limit=1000,
        stop_at_s=float("inf"),
        detokenizer=engine.detokenizer(),
        alone=alone,
    )
    return Run(job=job, run_id=_IDS.new(), subject="s", generation=generation)


def enter(runner: ModelRunner, engine: EchoEngine, text: str, *, alone: bool = False) -> Ticket:
    return runner.enter(run_of(engine, text, alone=alone), lambda: None)


async def test_what_arrives_together_departs_together(runners: Runners):
    """Eight at once over two free slots of four: two batches, and every text is its own."""
    runner, engine, frames = runners()
    tickets = [enter(runner, engine, f"n{n}") for n in range(8)]
    await asyncio.gather(*(ticket.done for ticket in tickets))
    assert [len(batch) for batch in engine.batches] == [4, 4]
    for n, ticket in enumerate(tickets):
        assert "".join(frames.texts[ticket.run.run_id]) == f"n{n}" == ticket.run.generation.text


async def test_a_redelivered_item_has_the_engine_to_itself(runners: Runners):
    """Whoever came with it runs in another batch."""
    runner, engine, _ = runners()
    tickets = [enter(runner, engine, "a"), enter(runner, engine, "suspect", alone=True)]
    tickets.append(enter(runner, engine, "b"))
    await asyncio.gather(*(ticket.done for ticket in tickets))
    assert [["suspect"]] in engine.batches


async def test_an_engine_that_fails_fails_its_batch_and_no_other(runners: Runners):
    """Its items hear an EngineError; the slot is free again for the next."""
    runner, engine, _ = runners()
    ticket = enter(runner, engine, "boom")
    with pytest.raises(EngineError):
        await ticket.done
    after = [enter(runner, engine, "fine") for _ in range(3)]
    await asyncio.gather(*(one.done for one in after))


async def test_an_item_that_is_done_does_not_wait_for_its_batch(runners: Runners):
    """The short one's answer is complete while the long one goes on."""
    runner, engine, _ = runners(tokens_per_s=100)
    busy = enter(runner, engine, "x " * 50)  # keeps one slot, so that the next two share one
    await asyncio.sleep(0.02)
    short, long = enter(runner, engine, "a b"), enter(runner, engine, "c " * 15)
    await short.done
    assert not long.done.done()
    assert any(len(batch) == 2 for batch in engine.batches)
    await asyncio.gather(long.done, busy.done)


async def test_fast_tokens_travel_together(runners: Runners):
    """A thousand tokens at once are a handful of deltas, and none is missing (I6)."""
    runner, engine, frames = runners()
    ticket = enter(runner, engine, "word " * 900)
    await ticket.done
    texts = frames.texts[ticket.run.run_id]
    assert len(texts) < 100
    assert len(ticket.run.generation.tokens) == 901
    assert "".join(texts) == "word" * 900


async def test_slow_tokens_travel_one_by_one(runners: Runners):
    """When steps are slower than the interval each token is a delta of its own."""
    runner, engine, frames = runners(tokens_per_s=30)
    ticket = enter(runner, engine, "a b c d")
    await ticket.done
    assert frames.texts[ticket.run.run_id] == ["a", "b", "c", "d"]


async def test_a_ticket_in_line_is_cancelled_without_a_run(runners: Runners):
    """It never reaches the engine."""
    runner, engine, _ = runners(tokens_per_s=50)
    busy = [enter(runner, engine, f"busy{n} " * 9) for n in range(2)]
    await asyncio.sleep(0.03)
    waiting = enter(runner, engine, "never")
    waiting.cancel()
    await waiting.done
    assert waiting.run.started_at is None
    await asyncio.gather(*(ticket.done for ticket in busy))
    assert [["never"]] not in engine.batches


async def test_what_waits_past_its_time_never_runs(runners: Runners):
    """It leaves the line when the next slot is free: no token is spent on it."""
    runner, engine, _ = runners(tokens_per_s=50)
    busy = [enter(runner, engine, f"busy{n} " * 9) for n in range(2)]
    await asyncio.sleep(0.03)
    run = run_of(engine, "late")
    run.generation.stop_at_s = SystemClock().monotonic_s() + 0.01
    late = runner.enter(run, lambda: None)
    await late.done
    assert (run.started_at, run.generation.stop) == (None, Stop.EXPIRED)
    await asyncio.gather(*(ticket.done for ticket in busy))


async def test_frames_that_cannot_be_sent_hold_no_job_for_ever(runners: Runners):
    """A bug on the way out fails the batch's items; the slot is free again."""
    runner, engine, frames = runners()
    ticket = enter(runner, engine, "a b c")
    frames.texts[ticket.run.run_id] = ["an impossible earlier delta"]
    with pytest.raises(AssertionError):
        await ticket.done
    await enter(runner, engine, "fine").done


async def test_a_stopped_runner_hands_everything_back(runners: Runners):
    """What waits and what runs hear it; nothing new is taken; the engine is let go."""
    runner, engine, _ = runners(tokens_per_s=20)
    running = [enter(runner, engine, "x " * 200) for _ in range(2)]
    await asyncio.sleep(0.1)
    waiting = enter(runner, engine, "y")
    await runner.stop()
    for ticket in [*running, waiting]:
        with pytest.raises(HandedBackError):
            await ticket.done
    assert running[0].run.generation.stop is Stop.ABANDONED
    with pytest.raises(HandedBackError):
        enter(runner, engine, "z")
