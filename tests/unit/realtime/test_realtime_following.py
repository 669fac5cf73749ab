"""Following a request when its sources fail: time passes, and no client hangs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from penstock_realtime.domain.renderer import Piece, Told
from penstock_realtime.ports import Kept
from penstock_realtime.serving.following import Following, Sources
from penstock_shared.contracts.errors import ErasedError, TransientError, UnavailableError
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Decision,
    RequestEnded,
    RequestFact,
    RequestRouted,
    Sampling,
    Status,
    Timings,
)
from penstock_shared.contracts.responses import FinalFrame, encode_delta
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
RUN = "0190e0f0-0000-7000-8000-00000000000a"
START = datetime(2026, 5, 1, tzinfo=UTC)


def ended(text: str = "abc") -> RequestEnded:
    return RequestEnded(
        request_id=REQUEST_ID,
        tenant="acme",
        key_id="key_1",
        data_subject="somebody",
        model="m",
        attempt=1,
        run=RUN,
        status=Status.COMPLETED,
        reason="stop",
        usage=Usage(input_tokens=1, output_tokens=len(text)),
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=1),
        output=text,
        delta_ends=tuple(range(1, len(text) + 1)),
        routed_at=START,
        ended_at=START,
    )


def routed(deadline: datetime) -> RequestRouted:
    return RequestRouted(
        request_id=REQUEST_ID,
        tenant="acme",
        key_id="key_1",
        data_subject="somebody",
        lane=Lane.STANDARD,
        attempt=1,
        decision=Decision(policy="t", model="m", probability=1, reason="t", features={}),
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=1),
        sampling=Sampling(),
        content="sealed",
        accepted_at=START,
        deadline=deadline,
    )


def attempt_failed() -> AttemptFailed:
    end = ended()
    return AttemptFailed(
        **end.model_dump(include=AttemptFailed.model_fields.keys() - {"reason", "timings"}),
        reason="schema",
        detail="sealed",
        timings=Timings(queued_ms=0, first_token_ms=0, total_ms=0),
        failed_at=START,
    )


class World:
    """A clock, a feed, a log and a vault in one; each silence passes as fast as it is asked."""

    def __init__(self) -> None:
        self.time = START
        self.live: list[list[bytes]] = []
        self.stored: list[bytes] = []
        self.looks = 0
        self.log: Callable[[], RequestFact | None] = lambda: None
        self.first: RequestRouted | None = None
        self.erased = False
        self.asked = 0

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return (self.time - START).total_seconds()

    async def get(self, timeout_s: float, **_: object) -> list[bytes]:
        if self.live:
            return self.live.pop(0)
        self.time += timedelta(seconds=timeout_s)
        return []

    async def close(self) -> None:
        self.live.clear()

    async def open(self, *given: str) -> object:
        if len(given) == 2:
            return self
        if self.erased:
            raise ErasedError("Erased.")
        return given[-1].encode()

    async def seal(self, *given: str) -> str:
        return given[-1]

    def overflowed(self) -> bool:
        return False

    lossy = False

    async def kept(self, tenant: str, request_id: str, after: int = 0) -> Kept:  # noqa: ARG002
        self.looks += 1
        return Kept(self.stored[after:], len(self.stored), more=False)

    async def last_fact(self, *_: str) -> RequestFact | None:
        self.asked += 1
        return self.log()

    async def routed(self, *_: str) -> RequestRouted | None:
        return self.first


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def following(world: World) -> Following:
    sources = Sources(frames=world, facts=world, vault=world, clock=world)  # type: ignore[arg-type]
    return Following(sources, "acme", REQUEST_ID, world)


async def text_of(following: Following) -> str:
    pieces = [one async for told in following.pieces() for one in told if isinstance(one, Piece)]
    return "".join(piece.literal.decode().strip('"') for piece in pieces)


async def test_silence_is_broken_by_the_log(world: World, following: Following) -> None:
    """Without one frame the terminal fact is the answer (I6)."""
    world.log = ended
    assert await text_of(following) == "abc"
    assert world.asked == 1
    assert world.monotonic_s() == 1.0


async def test_a_broker_that_is_away_is_asked_again(world: World, following: Following) -> None:
    """An outage costs time and no answer."""
    answers: list[RequestEnded | Exception] = [UnavailableError("away"), TransientError("key")]

    def log() -> RequestEnded:
        if answers:
            raise answers.pop(0)  # type: ignore[misc]
        return ended()

    world.log = log
    assert await text_of(following) == "abc"
    assert world.asked == 3


async def test_nobody_waits_for_ever(world: World, following: Following) -> None:
    """Past deadline and sweep the client is told, with few look-ups on the way."""
    with pytest.raises(UnavailableError) as caught:
        await following.final()
    assert caught.value.code == "response_overdue"
    assert 165 <= world.monotonic_s() <= 171
    assert world.asked < 60


async def test_between_attempts_the_deadline_is_that_of_the_request(
    world: World, following: Following
) -> None:
    """A failed attempt is no end, and does not say how long the next ones may take."""
    world.log = attempt_failed
    world.first = routed(START + timedelta(seconds=600))
    with pytest.raises(UnavailableError):
        await following.final()
    assert 645 <= world.monotonic_s() <= 651


async def test_a_gap_is_filled_from_what_is_kept(world: World, following: Following) -> None:
    """A frame before its turn makes the edge fetch those between (I6)."""
    frames = [encode_delta(1, RUN, n, letter) for n, letter in enumerate("abc")]
    final = FinalFrame.from_terminal(ended(), "abc").model_dump_json().encode()
    world.live = [[frames[0]], [frames[2]], [final]]
    world.stored = frames
    told = [one async for batch in following.pieces() for one in batch]
    assert told == [Piece(0, 0, b'"a"'), Piece(1, 1, b'"b"'), Piece(2, 2, b'"c"')]
    assert world.looks == 1


async def test_what_is_lost_for_good_is_not_asked_for_again_and_again(
    world: World, following: Following
) -> None:
    """After a broker's restart the beginning is gone: one look, and the end fills it (I6)."""
    world.live = [[encode_delta(1, RUN, n, "x")] for n in range(1, 50)]
    world.live.append([FinalFrame.from_terminal(ended(), "abc").model_dump_json().encode()])
    assert await text_of(following) == "abc"
    assert world.looks == 1


async def test_a_repeated_request_gets_nothing_of_a_run_that_lost(
    world: World, following: Following
) -> None:
    """Once the end is known, frames of a fenced run are not replayed to a late client (I2)."""
    world.log = ended
    world.stored = [encode_delta(1, "0190e0f0-0000-7000-8000-00000000000b", 0, "zombie")]
    told = [one async for batch in following.pieces(after=-1) for one in batch]
    assert told == [Piece(0, 0, b'"a"'), Piece(1, 1, b'"b"'), Piece(2, 2, b'"c"')]


async def test_an_unreadable_frame_is_no_end(world: World, following: Following) -> None:
    """What is neither a delta nor a final frame is passed over; the log has the end."""
    world.live = [[b'{"t":"final"}', b"\xff"]]
    world.log = ended
    assert await text_of(following) == "abc"


async def test_an_erased_answer_says_so(world: World, following: Following) -> None:
    """A destroyed key ends the response with its own error, not with a hang (I10)."""
    world.log = ended
    world.erased = True
    final = await following.final()
    assert (final.status, final.text) == (Status.FAILED, "")
    assert final.error is not None
    assert final.error.code == "erased"


class Way:
    """A passage that can be busy, and notes what was told through it."""

    def __init__(self) -> None:
        self.free = True
        self.told: list[int] = []

    def ready(self) -> bool:
        return self.free

    def tell(self, told: Told) -> None:
        self.told += [one.last for one in told]


async def test_only_the_next_delta_goes_the_direct_way_and_only_while_it_is_free(
    world: World, following: Following
) -> None:
    """What is out of turn, final, or meets a busy client waits for its turn: one order (I6)."""
    way = Way()
    frames = [encode_delta(1, RUN, n, letter) for n, letter in enumerate("abcdef")]
    final = FinalFrame.from_terminal(ended("abcdef"), "abcdef").model_dump_json().encode()
    accepted: list[bool] = []

    async def offered(_: float, *, direct: Callable[[bytes], bool] | None = None, **__: bool):
        assert direct is not None
        if not accepted:
            accepted.append(direct(frames[0]))  # nobody has met its run yet
            return [frames[0]]
        if len(accepted) == 1:
            accepted.extend(map(direct, frames[1:3]))
            way.free = False
            accepted.append(direct(frames[3]))
            return [frames[3]]
        way.free = True
        accepted.extend(map(direct, [frames[5], final]))
        return [frames[5], final]

    world.get = offered  # type: ignore[method-assign, assignment]
    yielded = [
        one.last
        async for told in following.pieces(passage=way)
        for one in told
        if isinstance(one, Piece)
    ]
    assert accepted == [False, True, True, False, False, False]
    assert way.told == [1, 2]
    assert yielded == [0, 3, 4, 5]
