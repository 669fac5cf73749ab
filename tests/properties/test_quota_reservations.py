"""Reservations under crashes, as a state machine against a real PostgreSQL (I4).

The event log is a list for each request, with expected-last-sequence; billing reads what is in it
in any order, in any batches, and as often as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeAlias, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from tests.support.billing import failed_attempt
from tests.support.quotas import QuotaRig, ended, quota_rig, routed, tenant

from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import AttemptFailed, RequestEnded, RequestRouted
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.postgres import Postgres

LIMIT = 60
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
NAMES = count()
Fact: TypeAlias = RequestRouted | AttemptFailed | RequestEnded
T = TypeVar("T")
PICKS = st.integers(0, 1_000_000)
"""Which of those that there are by then. A crash may come before or after its effect, so what is
drawn must not depend on what there is."""
PLANS = st.lists(st.integers(0, 20), min_size=1, max_size=3)


@dataclass
class Request:
    """One request: what its router holds of it, and its subject in the log."""

    decided: RequestRouted
    facts: list[Fact] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return bool(self.facts) and not isinstance(self.facts[-1], RequestEnded)

    @property
    def next_attempt(self) -> int:
        return len(self.facts)

    def used(self) -> int:
        return sum(f.usage.output_tokens for f in self.facts if not isinstance(f, RequestRouted))

    def reserved_for(self, attempt: int) -> int:
        """What its routed fact says of an attempt."""
        assert isinstance(self.facts[0], RequestRouted)
        return self.facts[0].reserves[attempt - 1].tokens


def picked(pick: int, found: Sequence[T]) -> Sequence[T]:
    """One of them, or none where there is none."""
    return [found[pick % len(found)]] if found else []


class Reservations(RuleBasedStateMachine):
    """Routers reserve, write and die; workers end attempts; billing reads; databases are lost."""

    def __init__(self, runner: asyncio.Runner, rig: QuotaRig, dsn: str) -> None:
        super().__init__()
        self.runner = runner
        self.rig = rig
        self.dsn = dsn
        self.name = f"t{next(NAMES)}"
        self.gate = rig.gate
        self.record = self.wait(rig.set_quotas(tenant(self.name, f"tokens/day={LIMIT}")))
        self.requests: list[Request] = []

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def request(self, plan: list[int], **fields: Any) -> RequestRouted:
        return routed(*plan, of=self.name, accepted_at=NOON, **fields)

    def granted(self, request: RequestRouted) -> bool:
        with contextlib.suppress(PenstockError):
            self.wait(self.gate.reserve(self.record, request))
            return True
        return False

    @rule(plan=PLANS)
    def reserve(self, plan: list[int]) -> None:
        request = self.request(plan)
        if self.granted(request):
            self.requests.append(Request(request))

    @rule(pick=PICKS, plan=PLANS, routes=st.booleans())
    def decide_again(self, pick: int, plan: list[int], *, routes: bool) -> None:
        """A repetition, by the same router or another one."""
        for request in picked(pick, self.requests):
            again = self.request(plan, request_id=request.decided.request_id)
            if self.granted(again) and routes:
                request.decided = again

    @rule(plan=PLANS, ticks=st.integers(0, 6))
    def crash_while_reserving(self, plan: list[int], ticks: int) -> None:
        """The router dies at some moment of it: reserved or not, nobody will route it."""

        async def crash() -> None:
            own = await Postgres.prepare(
                SecretStr(self.dsn), name="router", connections=1, role="penstock_router"
            )
            gate = PostgresQuotas(own, SystemClock())
            asking = asyncio.create_task(gate.reserve(self.record, self.request(plan)))
            for _ in range(ticks):
                await asyncio.sleep(0.001)
            asking.cancel()
            await gate.stop()
            with contextlib.suppress(asyncio.CancelledError, PenstockError):
                await asking

        self.wait(crash())

    @rule(pick=PICKS)
    def write_routed(self, pick: int) -> None:
        for request in picked(pick, [r for r in self.requests if not r.facts]):
            request.facts.append(request.decided)

    @rule(pick=PICKS, share=st.integers(0, 4), end=st.booleans())
    def finish_an_attempt(self, pick: int, share: int, *, end: bool) -> None:
        """By its check, or for good; it used so many quarters of what was reserved."""
        for request in picked(pick, [r for r in self.requests if r.is_open]):
            attempt = request.next_attempt
            plan = len(request.decided.reserves)
            used = request.reserved_for(attempt) * share // 4
            if end or attempt == plan:
                request.facts.append(ended(request.decided, used, attempt))
                return
            following = ended(request.decided, 0, attempt + 1)
            failed = failed_attempt(following, (0, used))
            request.facts.append(failed.model_copy(update={"routed_at": NOON}))

    @rule(picks=st.lists(PICKS, min_size=1, max_size=12))
    def read(self, picks: list[int]) -> None:
        """Any facts in any order, some of them twice, some of them again."""
        facts = [fact for request in self.requests for fact in request.facts]
        if facts:
            self.wait(self.bill([fact for pick in picks for fact in picked(pick, facts)]))

    @rule()
    def sweep(self) -> None:
        """What `handlers/orphans.py` does, as if all deadlines were over."""
        rows = self.wait(
            self.rig.postgres.fetch(
                "select distinct request_id::text from billing.reservations where tenant = $1",
                self.name,
            )
        )
        known = {request.decided.request_id: request for request in self.requests}
        for row in rows:
            request = known.get(row["request_id"])
            if request is None:
                request = Request(self.request([0], request_id=row["request_id"]))
                self.requests.append(request)
            if not request.facts:
                request.facts.append(ended(request.decided, 0))

    @rule()
    def lose_the_database(self) -> None:
        """And read the log again from its beginning; who was about to route dies with it."""
        self.requests = [request for request in self.requests if request.facts]

        async def rebuild() -> None:
            postgres = self.rig.postgres
            await postgres.fetch("truncate billing.usage")
            await postgres.fetch("delete from billing.reservations")
            await postgres.fetch("update billing.quota_use set reserved = 0")
            await self.rig.ledger.rebuild_begun(1)
            for request in self.requests:
                await self.bill(request.facts)
            await self.rig.ledger.rebuild_ended(1)

        self.wait(rebuild())

    @invariant()
    def nothing_is_overspent_and_nothing_uncounted(self) -> None:
        state = self.wait(self.rig.state(self.name, NOON))
        used = sum(request.used() for request in self.requests)
        assert used <= state.settled + state.reserved <= LIMIT
        self.wait(self.rig.check_sums())

    def teardown(self) -> None:
        """Everything ends, and billing reads it: nothing is reserved any more."""
        self.sweep()
        for request in self.requests:
            if not request.facts:
                request.facts.append(ended(request.decided, 0))
            elif request.is_open:
                request.facts.append(ended(request.decided, 0, request.next_attempt))
        self.wait(self.bill([fact for request in self.requests for fact in request.facts]))
        state = self.wait(self.rig.state(self.name, NOON))
        assert state.settled == sum(request.used() for request in self.requests)
        assert (state.reserved, self.wait(self.rig.open_rows())) == (0, 0)

    async def bill(self, batch: list[Fact]) -> None:
        """As billing does: usage first, then what `routed` facts tell of reservations."""
        await self.rig.end(*(fact for fact in batch if not isinstance(fact, RequestRouted)))
        told = [fact for fact in batch if isinstance(fact, RequestRouted)]
        await self.rig.ledger.restore(list({fact.request_id: fact for fact in told}.values()))


@pytest.mark.parametrize(
    "examples", [pytest.param(8, id="short"), pytest.param(200, id="long", marks=pytest.mark.long)]
)
async def test_reservations_never_leak_and_quotas_hold(postgres_dsn: str, examples: int) -> None:
    """Whatever dies when, however billing reads: used <= settled + reserved <= limit, to the token.

    In the end every reservation has ended, and what is settled is what the log says was used.
    """

    def check() -> None:
        with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
            opened = quota_rig(postgres_dsn)
            rig = runner.run(opened.__aenter__())
            stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
            run_state_machine_as_test(
                cast("type[Reservations]", lambda: Reservations(runner, rig, postgres_dsn)),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )

    await asyncio.to_thread(check)
