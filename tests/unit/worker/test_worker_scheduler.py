"""Slots, hand-over and failures of the scheduler, with the echo engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelKind, ModelLayout
from penstock_shared.contracts.requests import RequestEnded, Sampling
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.domain.batching import CutRule
from penstock_worker.domain.ending import Run
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.domain.line import LinePolicy
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineError, EngineMemoryError, HandedBackError
from penstock_worker.handlers.scheduler import Scheduler, SchedulerPolicy
from penstock_worker.handlers.text_batches import TextBatches
from penstock_worker.handlers.tickets import Ticket
from penstock_worker.ports import BatchObserver, Prompt, SamplingOptions

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
    """Notes the batches it was given; fails on the words "boom" and "huge"."""

    def __init__(self, layout: ModelLayout, tokens_per_s: float = 0.0) -> None:
        super().__init__(tokens_per_s=tokens_per_s)
        self.layout = layout
        self.batches: list[list[str]] = []
        self.running = 0
        self.most_running = 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        self.batches.append(["".join(prompt.tokens) for prompt in prompts])
        if any(prompt.tokens == ["boom"] for prompt in prompts):
            raise RuntimeError("something broke")
        if any(prompt.tokens == ["huge"] for prompt in prompts):
            raise EngineMemoryError("too much")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        super().generate(prompts, options, max_tokens, observer)
        self.running -= 1


LAYOUT = ModelLayout(compute_type="none", slots=2, threads=1, max_batch=4)
Scene = Callable[..., "tuple[Scheduler, Resident, CountingEngine, Frames]"]


def resident_of(engine: CountingEngine, name: str = "echo") -> Resident:
    return Resident(name, "1", ModelKind.TEXT, engine, engine.layout, memory_bytes=0)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made: list[Scheduler] = []

    def make(
        tokens_per_s: float = 0.0,
        layout: ModelLayout = LAYOUT,
        processors: int = 2,
        promote_after_s: float = 5.0,
    ) -> tuple[Scheduler, Resident, CountingEngine, Frames]:
        engine, frames, clock = CountingEngine(layout, tokens_per_s), Frames(), SystemClock()
        text = TextBatches(frames, clock, delta_interval_s=0.01, cut=CutRule())
        scheduler = Scheduler(
            {ModelKind.TEXT: text},
            clock,
            SchedulerPolicy(processors, 0.001, LinePolicy(promote_after_s=promote_after_s)),
        )
        made.append(scheduler)
        return scheduler, resident_of(engine), engine, frames

    yield make
    for scheduler in made:
        await scheduler.stop()


def ticket_of(
    resident: Resident,
    text: str,
    *,
    alone: bool = False,
    tenant: str = "acme",
    lane: Lane = Lane.STANDARD,
    limit: int = 1000,
    temperature: float = 0.0,
    stop_at_s: float = math.inf,
) -> Ticket:
    now = datetime.now(UTC)
    job = Job(
        request_id=_IDS.new(),
        tenant=tenant,
        key_id="k",
        data_subject="u",
        model="echo",
        lane=lane,
        attempt=1,
        expected_seq=1,
        price=Price(input_microusd_per_1k=0, output_microusd_per_1k=0),
        sampling=Sampling(),
        content="",
        routed_at=now,
        deadline=now + timedelta(seconds=60),
    )
    engine = cast("CountingEngine", resident.engine)
    generation = Generation(
        prompt=engine.encode_answer(text),
        options=SamplingOptions(temperature),
        limit=limit,
        stop_at_s=stop_at_s,
        detokenizer=engine.detokenizer([]),
    )
    run = Run(job, _IDS.new(), "s", ModelKind.TEXT, generation)
    return Ticket(run, resident, alone, SystemClock().monotonic_s(), lambda: None)


def enter(scheduler: Scheduler, resident: Resident, text: str, **options: Any) -> Ticket:
    ticket = ticket_of(resident, text, **options)
    scheduler.enter(ticket)
    return ticket


def work_of(ticket: Ticket) -> Generation:
    return cast("Generation", ticket.run.work)


async def all_done(tickets: Iterable[Ticket]) -> None:
    await asyncio.gather(*(ticket.done for ticket in tickets))


async def test_what_arrives_together_departs_together(scene: Scene):
    """Eight at once over two free slots of four: two batches, and every text is its own."""
    scheduler, resident, engine, frames = scene()
    tickets = [enter(scheduler, resident, f"n{n}") for n in range(8)]
    await all_done(tickets)
    assert [len(batch) for batch in engine.batches] == [4, 4]
    for n, ticket in enumerate(tickets):
        assert "".join(frames.texts[ticket.run.run_id]) == f"n{n}" == ticket.run.work.text


async def test_batches_share_model_and_options(scene: Scene):
    """A warm one, a cold one and one of another model never meet in the engine."""
    scheduler, resident, engine, _ = scene()
    other = resident_of(CountingEngine(LAYOUT), "other")
    tickets = [enter(scheduler, resident, "cold") for _ in range(3)]
    tickets += [enter(scheduler, resident, "warm", temperature=1.0) for _ in range(3)]
    tickets += [enter(scheduler, other, "other") for _ in range(3)]
    await all_done(tickets)
    batches = engine.batches + cast("CountingEngine", other.engine).batches
    assert all(len(set(batch)) == 1 for batch in batches)
    assert sum(map(len, batches)) == len(tickets)


async def test_all_models_together_use_the_processors_that_there_are(scene: Scene):
    """Two models of two slots each on one processor: one batch at a time, and all are served."""
    scheduler, resident, engine, _ = scene(tokens_per_s=200, processors=1)
    engine.layout = resident.layout = LAYOUT.model_copy(update={"max_batch": 1})
    tickets = [enter(scheduler, resident, "a b") for _ in range(4)]
    await all_done(tickets)
    assert engine.most_running == 1


async def test_a_model_that_takes_more_threads_than_there_are_runs_alone(scene: Scene):
    """It is slow, and it is served."""
    scheduler, resident, engine, _ = scene(
        layout=LAYOUT.model_copy(update={"threads": 4, "max_batch": 1}), tokens_per_s=200
    )
    await all_done([enter(scheduler, resident, "a b") for _ in range(3)])
    assert engine.most_running == 1


async def test_a_redelivered_item_has_the_engine_to_itself(scene: Scene):
    """Whoever came with it runs in another batch."""
    scheduler, resident, engine, _ = scene()
    tickets = [enter(scheduler, resident, "a"), enter(scheduler, resident, "suspect", alone=True)]
    tickets.append(enter(scheduler, resident, "b"))
    await all_done(tickets)
    assert ["suspect"] in engine.batches


async def test_an_engine_that_fails_fails_its_batch_and_no_other(scene: Scene):
    """Its items hear an EngineError; the slot is free again for the next."""
    scheduler, resident, _, _ = scene()
    ticket = enter(scheduler, resident, "boom")
    with pytest.raises(EngineError):
        await ticket.done
    await all_done([enter(scheduler, resident, "fine") for _ in range(3)])


async def test_too_little_memory_means_smaller_batches(scene: Scene):
    """Its items fail transiently, so they come again; the next batches are half as large."""
    scheduler, resident, _, _ = scene()
    tickets = [enter(scheduler, resident, "huge") for _ in range(8)]
    for ticket in tickets:
        with pytest.raises(TransientError):
            await ticket.done
    assert resident.layout.max_batch < LAYOUT.max_batch
    await enter(scheduler, resident, "fine").done


async def test_an_item_that_is_done_does_not_wait_for_its_batch(scene: Scene):
    """The short one's answer is complete while the long one goes on."""
    scheduler, resident, engine, _ = scene(tokens_per_s=100)
    busy = enter(scheduler, resident, "x " * 50)  # keeps one slot, so that the next two share one
    await asyncio.sleep(0.02)
    short, long = enter(scheduler, resident, "a b"), enter(scheduler, resident, "c " * 15)
    await short.done
    assert not long.done.done()
    assert any(len(batch) == 2 for batch in engine.batches)
    await all_done([long, busy])


async def test_a_newcomer_waits_for_a_slot_and_not_for_the_longest(scene: Scene):
    """A long answer runs in one slot; short ones go through the other, one after the other."""
    scheduler, resident, _, _ = scene(tokens_per_s=100)
    long = enter(scheduler, resident, "x " * 100)
    await asyncio.sleep(0.02)
    for n in range(5):
        await enter(scheduler, resident, f"n{n}").done
    assert not long.done.done()


async def test_stragglers_go_on_in_another_batch(scene: Scene):
    """The last of a batch leaves it for company, and its answer is what it would have been.

    Tokens, text and deltas are whole: nothing is generated twice, and nothing is lost (I3, I6).
    """
    scheduler, resident, engine, frames = scene(
        tokens_per_s=200,
        layout=LAYOUT.model_copy(update={"slots": 1}),
        processors=1,
    )
    long = "w " * 60
    straggler = enter(scheduler, resident, long)
    short = [enter(scheduler, resident, "s " * 50 + "!", limit=4) for _ in range(3)]
    await all_done(short)
    late = [enter(scheduler, resident, f"{'l ' * 62}{n}", limit=20) for n in range(3)]
    await all_done([straggler, *late])
    with_straggler = [
        batch for batch in engine.batches if long.strip() + " " in batch or long in batch
    ]
    assert len(with_straggler) == 2
    assert len(with_straggler[1]) > 1
    assert work_of(straggler).text == long
    assert "".join(frames.texts[straggler.run.run_id]) == long
    assert len(work_of(straggler).tokens) == len(work_of(straggler).prompt)


async def test_a_flood_does_not_hold_up_another_tenant(scene: Scene):
    """A hundred jobs of one tenant wait; another one's single job is in one of the next batches."""
    scheduler, resident, _, _ = scene(tokens_per_s=200)
    flood = [enter(scheduler, resident, f"f{n}", tenant="flood") for n in range(100)]
    await asyncio.sleep(0.02)
    quiet = enter(scheduler, resident, "q", tenant="quiet")
    await quiet.done
    assert sum(ticket.done.done() for ticket in flood) < 50
    await all_done(flood)


async def test_fast_tokens_travel_together(scene: Scene):
    """A thousand tokens at once are a handful of deltas, and none is missing (I6)."""
    scheduler, resident, _, frames = scene()
    ticket = enter(scheduler, resident, "word " * 900)
    await ticket.done
    texts = frames.texts[ticket.run.run_id]
    assert len(texts) < 100
    assert len(work_of(ticket).tokens) == 900
    assert "".join(texts) == "word " * 900


async def test_slow_tokens_travel_one_by_one(scene: Scene):
    """When steps are slower than the interval each token is a delta of its own."""
    scheduler, resident, _, frames = scene(tokens_per_s=30)
    ticket = enter(scheduler, resident, "a b c d")
    await ticket.done
    assert frames.texts[ticket.run.run_id] == ["a", " b", " c", " d"]


async def test_a_ticket_in_line_is_cancelled_without_a_run(scene: Scene):
    """It never reaches the engine."""
    scheduler, resident, engine, _ = scene(tokens_per_s=50)
    busy = [enter(scheduler, resident, f"busy{n} " * 9) for n in range(2)]
    await asyncio.sleep(0.03)
    waiting = enter(scheduler, resident, "never")
    waiting.cancel()
    await waiting.done
    assert waiting.run.started_at is None
    await all_done(busy)
    assert ["never"] not in engine.batches


async def test_cancelled_in_mid_stream_it_stops_within_a_step(scene: Scene):
    """What was generated by then is what counts; a second cancellation changes nothing (I3)."""
    scheduler, resident, _, frames = scene(tokens_per_s=50)
    ticket = enter(scheduler, resident, "x " * 200)
    await asyncio.sleep(0.1)
    seen = len(work_of(ticket).tokens)
    ticket.cancel()
    await ticket.done
    assert seen <= len(work_of(ticket).tokens) <= seen + 2
    assert work_of(ticket).stop is Stop.CANCELLED
    assert "".join(frames.texts[ticket.run.run_id]) == work_of(ticket).text
    ticket.cancel()


async def test_cancelled_after_its_end_it_stays_complete(scene: Scene):
    """Too late is too late."""
    scheduler, resident, _, _ = scene()
    ticket = enter(scheduler, resident, "a b")
    await ticket.done
    ticket.cancel()
    assert work_of(ticket).stop is None


async def test_what_waits_past_its_time_never_runs(scene: Scene):
    """It leaves the line when the next slot is free: no token is spent on it."""
    scheduler, resident, _, _ = scene(tokens_per_s=50)
    busy = [enter(scheduler, resident, f"busy{n} " * 9) for n in range(2)]
    await asyncio.sleep(0.03)
    late = enter(scheduler, resident, "late", stop_at_s=SystemClock().monotonic_s() + 0.01)
    await late.done
    assert (late.run.started_at, work_of(late).stop) == (None, Stop.EXPIRED)
    await all_done(busy)


async def test_frames_that_cannot_be_sent_hold_no_job_for_ever(scene: Scene):
    """A bug on the way out fails the batch's items; the slot is free again."""
    scheduler, resident, _, frames = scene()
    ticket = enter(scheduler, resident, "a b c")
    frames.texts[ticket.run.run_id] = ["an impossible earlier delta"]
    with pytest.raises(AssertionError):
        await ticket.done
    await enter(scheduler, resident, "fine").done


async def test_draining_hands_back_what_never_began(scene: Scene):
    """At once; what runs is finished."""
    scheduler, resident, _, _ = scene(tokens_per_s=100)
    running = [enter(scheduler, resident, f"r{n} " * 20) for n in range(2)]
    await asyncio.sleep(0.03)
    waiting = enter(scheduler, resident, "y")
    scheduler.hand_back_waiting()
    with pytest.raises(HandedBackError):
        await waiting.done
    await all_done(running)
    assert all(work_of(ticket).stop is None for ticket in running)


async def test_a_stopped_scheduler_hands_everything_back(scene: Scene):
    """What waits and what runs hear it; nothing new is taken."""
    scheduler, resident, _, _ = scene(tokens_per_s=20)
    running = [enter(scheduler, resident, "x " * 200) for _ in range(2)]
    await asyncio.sleep(0.1)
    waiting = enter(scheduler, resident, "y")
    await scheduler.stop()
    for ticket in [*running, waiting]:
        with pytest.raises(HandedBackError):
            await ticket.done
    assert work_of(running[0]).stop is Stop.ABANDONED
    with pytest.raises(HandedBackError):
        enter(scheduler, resident, "z")


async def test_every_slot_has_a_thread(scene: Scene):
    """On a large machine as many batches run as it has slots, not as many as a pool happens to."""
    layout = LAYOUT.model_copy(update={"slots": 48, "max_batch": 1})
    scheduler, resident, engine, _ = scene(tokens_per_s=20, layout=layout, processors=48)
    await all_done([enter(scheduler, resident, f"a b c d n{n}") for n in range(48)])
    assert engine.most_running > 32  # a pool's default, on the largest machines


async def test_cancelled_while_it_moves_it_runs_no_more(scene: Scene):
    """Cancelled between the batch that it leaves and the next one: it ends, at once (I3)."""
    scheduler, resident, engine, _ = scene(tokens_per_s=100, processors=1)
    ticket = enter(scheduler, resident, "a " * 50)
    await asyncio.sleep(0.05)
    work_of(ticket).cut = True
    tokens = len(work_of(ticket).tokens)
    while len(work_of(ticket).tokens) == tokens:
        await asyncio.sleep(0)
    ticket.cancel()
    await ticket.done
    assert work_of(ticket).stop is Stop.CANCELLED
    assert len(engine.batches) == 1


async def test_a_model_that_takes_all_threads_is_not_passed_by_for_ever(scene: Scene):
    """Another one's batches take every thread as it comes free: they make way in the end."""
    narrow = LAYOUT.model_copy(update={"max_batch": 1})
    scheduler, resident, _, _ = scene(tokens_per_s=200, layout=narrow, promote_after_s=0.05)
    wide = resident_of(
        CountingEngine(LAYOUT.model_copy(update={"slots": 1, "threads": 2})), name="wide"
    )
    flood = [enter(scheduler, resident, "f " * (5 + n % 2 * 7)) for n in range(60)]
    await asyncio.sleep(0.02)
    await enter(scheduler, wide, "w", tenant="quiet").done
    assert sum(ticket.done.done() for ticket in flood) < 50
    await all_done(flood)
