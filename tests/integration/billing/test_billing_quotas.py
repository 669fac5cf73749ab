"""Quotas on a real PostgreSQL: what is held, refused, settled and given back (I4)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from tests.support.billing import failed_attempt
from tests.support.quotas import QuotaRig, ended, metered, quota_rig, routed, tenant

from penstock_billing.domain.metering import MAX_COST_MICROUSD
from penstock_billing.handlers.usage import UsageDesk
from penstock_billing.ports.usage import Position
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.contracts.errors import (
    RateLimitedError,
    SchemaError,
    TooLargeError,
    UnavailableError,
)
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.postgres import Postgres

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)

OVERDUE = "billing.overdue_reservations(timestamptz, timestamptz, text, uuid, integer)"
GRANTED = (
    "usage on schema billing",
    "execute on function billing.reserve(jsonb)",
    f"execute on function {OVERDUE}",
)
"""To routers, as billing's README says."""


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[QuotaRig]:
    """Billing's database, and a router's gate to it."""
    async with quota_rig(postgres_dsn) as made:
        yield made
        await made.check_sums()


async def test_a_quota_is_used_up_exactly_and_never_exceeded(rig: QuotaRig) -> None:
    """64 at once: as many as fit get in, at every instant it holds, and all of it can be used (I4).

    Settled and reserved use are read from outside while submitters reserve, use and come back.
    """
    acme = await rig.set_quotas(tenant("acme", "tokens/day=1000", "tokens/month=100000"))
    most = 0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            day, _ = await rig.accounts.quotas("acme", datetime.now(UTC))
            most = max(most, day.settled + day.reserved)

    async def submit(number: int) -> int:
        used = 0
        while True:
            request = routed(10)
            try:
                await rig.gate.reserve(acme, request)
            except RateLimitedError as error:
                if error.retry_after_s > 1:
                    return used  # settled: no room before the day ends
                await asyncio.sleep(0.001)
                continue
            spent = 1 + number % 10
            await rig.end(ended(request, spent))
            used += spent

    watcher = asyncio.create_task(watch())
    spent = sum(await asyncio.gather(*map(submit, range(64))))
    done.set()
    await watcher
    day, month = await rig.accounts.quotas("acme", datetime.now(UTC))
    assert most <= 1000
    assert (day.settled, day.reserved) == (spent, 0)
    assert (month.settled, month.reserved) == (spent, 0)
    assert 990 < spent <= 1000  # nobody could reserve ten any more
    last = routed(1000 - spent)
    await rig.gate.reserve(acme, last)
    await rig.end(ended(last, 1000 - spent))
    assert (await rig.accounts.quotas("acme", datetime.now(UTC)))[0].left == 0


async def test_a_refusal_says_which_quota_and_when_to_come_back(rig: QuotaRig) -> None:
    """Until the period ends when use is in the way, a second when only open requests are."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=1000"))
    open_one = routed(600)
    await rig.gate.reserve(acme, open_one)
    with pytest.raises(RateLimitedError, match="1,000 tokens per day is held") as soon:
        await rig.gate.reserve(acme, routed(600))
    assert (soon.value.code, soon.value.retry_after_s) == ("insufficient_quota", 1.0)
    await rig.end(ended(open_one, 600))
    with pytest.raises(RateLimitedError, match="1,000 tokens per day has no room") as later:
        await rig.gate.reserve(acme, routed(600))
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert later.value.retry_after_s == pytest.approx((midnight - now).total_seconds(), abs=5)
    with pytest.raises(TooLargeError, match="may use 1,001 tokens") as never:
        await rig.gate.reserve(acme, routed(1001))
    assert never.value.param == "max_output_tokens"


async def test_of_several_quotas_the_one_that_lasts_is_told(rig: QuotaRig) -> None:
    """Who comes back when the first of them lets him in meets no other that he was not told of."""
    acme = await rig.set_quotas(
        tenant("acme", "requests/day=1", "tokens/day=100", "tokens/month=9")
    )
    await rig.gate.reserve(acme, routed(3))
    with pytest.raises(TooLargeError, match="may use 101 tokens"):
        await rig.gate.reserve(acme, routed(101))
    used_up = routed(6)
    await rig.set_quotas(tenant("acme", "requests/day=2", "tokens/month=9"))
    await rig.gate.reserve(acme, used_up)
    await rig.end(ended(used_up, 8))
    with pytest.raises(RateLimitedError, match="9 tokens per month has no room"):
        await rig.gate.reserve(acme, routed(2))


async def test_every_unit_counts_and_one_refusal_reserves_nothing(rig: QuotaRig) -> None:
    """The scarcest of several quotas decides, and then none of them is touched."""
    acme = await rig.set_quotas(
        tenant("acme", "requests/day=2", "tokens/day=100", "microusd/month=50")
    )
    await rig.gate.reserve(acme, routed(10, 20))
    with pytest.raises(RateLimitedError, match="50 microusd per month"):
        await rig.gate.reserve(acme, routed(30))
    await rig.gate.reserve(acme, routed(20))
    with pytest.raises(RateLimitedError, match="2 requests per day"):
        await rig.gate.reserve(acme, routed(0))
    states = {s.unit.value: s.reserved for s in await rig.accounts.quotas("acme", NOON)}
    assert states == {"requests": 2, "tokens": 50, "microusd": 50}


async def test_an_attempt_settles_itself_and_the_end_releases_the_rest(rig: QuotaRig) -> None:
    """In the order of the log and in the other one; in between nothing is uncounted (I4)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=1000"))
    for reverse in (False, True):
        request = routed(100, 200, 300)
        await rig.gate.reserve(acme, request)
        before = await rig.state()
        end = ended(request, 50, attempt=2)
        failed = failed_attempt(end, (0, 30)).model_copy(update={"routed_at": request.accepted_at})
        if reverse:
            await rig.end(end)
            middle = await rig.state()
            assert middle.reserved == before.reserved - 500  # attempt 1 keeps its 100
            await rig.end(failed)
        else:
            await rig.end(failed)
            middle = await rig.state()
            assert middle.reserved == before.reserved - 100
            await rig.end(end)
        for fact in (end, failed):  # delivered again
            await rig.end(fact)
        after = await rig.state()
        assert after.settled == before.settled + 80
        assert after.reserved == before.reserved - 600
    assert await rig.open_rows() == 0


async def test_asking_again_reserves_nothing_more(rig: QuotaRig) -> None:
    """Repetitions, at the same moment too; after the end nothing is reserved at all."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=1000"))
    request = routed(100, 100)
    await asyncio.gather(*(rig.gate.reserve(acme, request) for _ in range(8)))
    assert (await rig.state()).reserved == 200
    # Decided again after a crash, with another plan: room for whichever of the two is routed.
    again = routed(50, 150, 70, request_id=request.request_id)
    await rig.gate.reserve(acme, again)
    assert (await rig.state()).reserved == 100 + 150 + 70
    await rig.end(ended(request, 10))
    await rig.gate.reserve(acme, again)
    state = await rig.state()
    assert (state.settled, state.reserved) == (10, 0)


async def test_a_request_counts_on_the_day_of_its_acceptance(rig: QuotaRig) -> None:
    """A day's last requests settle in it, and the next day begins empty."""
    late = NOON.replace(hour=23, minute=59, second=59, microsecond=999_999)
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    request, early = routed(100, accepted_at=late), late + timedelta(microseconds=1)
    await rig.gate.reserve(acme, request)
    with pytest.raises(RateLimitedError):
        await rig.gate.reserve(acme, routed(1, accepted_at=late))
    await rig.gate.reserve(acme, routed(60, accepted_at=early))
    # Asked again on the other side of midnight: it needs room there, too, until it is routed.
    with pytest.raises(RateLimitedError):
        await rig.gate.reserve(acme, request.model_copy(update={"accepted_at": early}))
    smaller = routed(40, accepted_at=early, request_id=request.request_id)
    await rig.gate.reserve(acme, smaller)
    assert [(await rig.state(at=at)).reserved for at in (late, early)] == [100, 100]
    await rig.end(ended(smaller, 30))
    states = [await rig.state(at=at) for at in (late, early)]
    assert [(s.settled, s.reserved) for s in states] == [(0, 0), (30, 60)]
    assert states[0].resets_at == early.replace(microsecond=0)


async def test_a_quota_counts_what_was_used_before_it_was_set(rig: QuotaRig) -> None:
    """Also what is metered at that very moment, by somebody who knows of no quota (I4)."""
    await rig.end(*(ended(routed(), 5) for _ in range(20)))
    facts = [ended(routed(), 5) for _ in range(200)]
    batches = [rig.end(*facts[n : n + 10]) for n in range(0, 200, 10)]
    await asyncio.gather(*batches[:10], rig.set_quotas(tenant("acme", "tokens/day=1100")))
    await asyncio.gather(*batches[10:])
    assert (await rig.state()).settled == 220 * 5
    acme = tenant("acme", "tokens/day=1100")
    with pytest.raises(RateLimitedError):
        await rig.gate.reserve(acme, routed(1))


async def test_a_quota_that_was_lifted_for_a_while_has_missed_nothing(rig: QuotaRig) -> None:
    """Use goes on being counted; lowered below it, nobody gets in; raised, as many as fit (I4)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    held, used = routed(10), routed(50)
    await rig.gate.reserve(acme, held)
    await rig.set_quotas(tenant("acme"))
    await rig.gate.reserve(acme, used)  # by a router that has not heard of it: nothing is held
    await rig.end(ended(used, 40))
    for limit, fits in ((49, False), (51, True)):
        await rig.set_quotas(tenant("acme", f"tokens/day={limit}"))
        state = await rig.state()
        assert (state.settled, state.reserved) == (40, 10)
        if fits:
            await rig.gate.reserve(acme, routed(1))
        with pytest.raises(RateLimitedError):
            await rig.gate.reserve(acme, routed(1))


async def test_more_use_than_was_reserved_is_settled_as_used(rig: QuotaRig) -> None:
    """An overdraft is not hidden: nothing is left, and nobody gets in (I3)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    request = routed(10)
    await rig.gate.reserve(acme, request)
    await rig.end(ended(request, 150))
    state = await rig.state()
    assert (state.settled, state.reserved, state.left) == (150, 0, 0)
    with pytest.raises(RateLimitedError):
        await rig.gate.reserve(acme, routed(1))


async def test_sums_beyond_every_number_that_is_added_are_counted(rig: QuotaRig) -> None:
    """The dearest facts that there can be are billed, and settle; nothing overflows."""
    await rig.set_quotas(tenant("acme", "microusd/month=1"))
    dearest = metered(ended(routed(), 1))._replace(cost_microusd=MAX_COST_MICROUSD)
    await rig.ledger.record([dearest._replace(attempt=n) for n in range(1, 10_001)])
    assert (await rig.state()).settled == 10_000 * MAX_COST_MICROUSD


async def test_who_has_no_quota_needs_no_database(rig: QuotaRig) -> None:
    """PostgreSQL away, or never given: only tenants with quotas notice."""
    gone = await Postgres.prepare(
        SecretStr("postgresql://nobody:x@127.0.0.1:1/none"), name="router", connections=1
    )
    for gate in (PostgresQuotas(None, SystemClock()), PostgresQuotas(gone, SystemClock())):
        await gate.reserve(tenant("globex"), routed(of="globex"))
        with pytest.raises(UnavailableError) as refused:
            await gate.reserve(tenant("acme", "tokens/day=1"), routed(1))
        assert refused.value.code == "quotas_unavailable"
        await gate.stop()


async def test_a_server_that_stands_still_holds_nobody_for_long(
    rig: QuotaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not even confirm a cancellation: who asked, and who waits behind, is told (I8).

    Of a router's room for admissions those who wait take a part; when it goes on, so do they.
    """
    monkeypatch.setattr("penstock_router.adapters.postgres_quotas._ANSWER_S", 0.5)
    monkeypatch.setattr("penstock_shared.runtime.postgres._CONNECT_TIMEOUT_S", 0.5)
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100000"))
    await rig.gate.reserve(acme, routed(1))
    (row,) = await rig.postgres.fetch(
        "select pid from pg_stat_activity"
        " where application_name = 'penstock-router' and datname = current_database()"
    )
    os.kill(row["pid"], signal.SIGSTOP)
    try:
        async with asyncio.timeout(15):
            told = await asyncio.gather(
                *(rig.gate.reserve(acme, routed(1)) for _ in range(1500)), return_exceptions=True
            )
    finally:
        os.kill(row["pid"], signal.SIGCONT)
    assert {type(answer) for answer in told} == {UnavailableError}
    await rig.gate.reserve(acme, routed(1))
    # The cancelled statement may have been carried out, too: what it reserved is ended.


async def test_one_tenants_odd_value_is_nothing_to_the_others(rig: QuotaRig) -> None:
    """What PostgreSQL cannot store fails alone, in whatever company it came (I8)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=1000"))
    evil = await rig.set_quotas(tenant("evil", "tokens/day=1000"))
    answers = await asyncio.gather(
        rig.gate.reserve(acme, routed(1)),
        rig.gate.reserve(evil, routed(1, of="evil", data_subject="nul \x00 byte")),
        rig.gate.reserve(evil, routed(1, of="evil").model_copy(update={"key_id": "\x00"})),
        rig.gate.reserve(acme, routed(1)),
        rig.gate.reserve(evil, routed(1, of="evil", data_subject="'; drop table billing.usage --")),
        return_exceptions=True,
    )
    done = type(None)
    assert [type(answer) for answer in answers] == [done, SchemaError, SchemaError, done, done]
    states = {s.tenant: s.reserved for s in await rig.accounts.quotas(None, NOON)}
    assert states == {"acme": 2, "evil": 1}


async def test_nothing_is_reserved_while_usage_is_read_again(rig: QuotaRig) -> None:
    """Emptied usage asks for it by itself, and until it is back nobody knows what is left (I9)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    kept, request = routed(30), routed(60)
    for one in (kept, request):
        await rig.gate.reserve(acme, one)
    await rig.end(ended(request, 50))
    await rig.postgres.fetch("truncate billing.usage")
    assert (await rig.state()).settled == 0
    with pytest.raises(UnavailableError):
        await rig.gate.reserve(acme, routed(1))
    assert await rig.ledger.rebuild_requested()
    await rig.ledger.rebuild_begun(7)
    assert not await rig.ledger.rebuild_requested()
    await rig.ledger.restore([kept, request])
    await rig.end(ended(request, 50))
    await rig.ledger.rebuild_ended(6)
    with pytest.raises(UnavailableError):
        await rig.gate.reserve(acme, routed(1))
    await rig.ledger.rebuild_ended(7)
    await rig.gate.reserve(acme, routed(20))
    state = await rig.state()
    assert (state.settled, state.reserved) == (50, 50)


async def test_lost_reservations_come_back_from_the_log(rig: QuotaRig) -> None:
    """A restored database learns of open requests from `routed`, and of no ended one (I9)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    known, lost, over = routed(10), routed(20, 5), routed(40)
    await rig.gate.reserve(acme, known)
    await rig.end(ended(over, 1))
    for _ in range(2):
        await rig.ledger.restore([known, lost, over, routed(7, of="globex")])
    state = await rig.state()
    assert (state.settled, state.reserved, await rig.open_rows()) == (1, 35, 3)


async def test_later_attempts_come_back_when_an_earlier_one_is_known(rig: QuotaRig) -> None:
    """A batch's usage is written first: what is still open is reserved all the same (I4, I9)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    request = routed(20, 30, 40)
    end = ended(request, 25, attempt=2)
    failed = failed_attempt(end, (0, 10)).model_copy(update={"routed_at": request.accepted_at})
    await rig.end(failed)
    for _ in range(2):
        await rig.ledger.restore([request])
    state = await rig.state()
    assert (state.settled, state.reserved) == (10, 70)
    with pytest.raises(RateLimitedError):
        await rig.gate.reserve(acme, routed(21))
    await rig.end(end)
    await rig.ledger.restore([request])
    state = await rig.state()
    assert (state.settled, state.reserved) == (35, 0)


async def test_a_position_of_the_reading_before_ends_no_rebuild(rig: QuotaRig) -> None:
    """Another replica sets the reading back while this one asks how far it has come (I4, I9)."""
    asked = asyncio.Event()

    class LastReading:
        async def read(self) -> Position:
            await rig.postgres.fetch("truncate billing.usage")
            await rig.ledger.rebuild_begun(7)
            asked.set()
            return Position(events_seq=7, lag=0)

    watch = asyncio.create_task(UsageDesk(rig.ledger, LastReading()).watch(60))
    await asked.wait()
    await asyncio.sleep(0.1)
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    assert await rig.ledger.rebuild_until() == 7


async def test_a_routers_own_role_reserves_and_sees_nothing_else(
    rig: QuotaRig, postgres_dsn: str
) -> None:
    """Two functions are all that production grants it: accounts and usage stay billing's (I8)."""
    acme = await rig.set_quotas(tenant("acme", "tokens/day=100"))
    role = f"router_{secrets.token_hex(4)}"
    await rig.postgres.fetch(f"create role {role} login password 'x'")
    parts = urlsplit(postgres_dsn)
    own = parts._replace(netloc=f"{role}:x@{parts.hostname}:{parts.port}").geturl()
    postgres = await Postgres.connect(SecretStr(own), name="router", connections=1)
    gate = PostgresQuotas(postgres, SystemClock())
    with pytest.raises(UnavailableError):  # nothing is granted yet
        await gate.reserve(acme, routed(10))
    for granted in GRANTED:
        await rig.postgres.fetch(f"grant {granted} to {role}")
    await gate.reserve(acme, routed(10))
    assert len(await gate.overdue(datetime.now(UTC) + timedelta(hours=1), None)) == 1
    for table in ("tenants", "api_keys", "usage", "reservations", "quota_use"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await postgres.fetch(f"table billing.{table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await postgres.fetch("select billing.restore('[]')")
    await gate.stop()
    for granted in GRANTED:
        await rig.postgres.fetch(f"revoke {granted} from {role}")
    await rig.postgres.fetch(f"drop role {role}")
