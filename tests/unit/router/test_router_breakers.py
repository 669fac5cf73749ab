"""Circuit breakers: when they open, whom they let through, and that no tenant shuts another out."""

from __future__ import annotations

import pytest
from tests.support.breaking import BROKEN, after, ended, request_id, routed

from penstock_router.domain.breaker import (
    LONGEST_OPEN_S,
    OPEN_S,
    PROBES,
    Breaker,
    BreakerState,
    Tally,
)
from penstock_router.domain.breakers import Breakers, broke
from penstock_shared.contracts.errors import ErrorBody, UnavailableError
from penstock_shared.contracts.requests import Status
from penstock_worker.domain.flaw import Flaw
from penstock_worker.errors import ConversationError, EngineError, ModelError, PoisonError

MANY = range(1_000)


def fail(breakers: Breakers, tenant: str, times: int, at_s: float = 0.0) -> None:
    for number in range(times):
        breakers.observe(ended(number, tenant=tenant, error=BROKEN), after(at_s))


def share_let_through(breakers: Breakers, tenant: str, at_s: float) -> float:
    passed = (breakers.allows(tenant, "small", request_id(n), after(at_s)) for n in MANY)
    return sum(passed) / len(MANY)


@pytest.mark.parametrize("error", [EngineError(""), PoisonError(""), ModelError("")])
def test_what_the_worker_cannot_do_is_the_platforms_failure(error: EngineError) -> None:
    """Every error by which a worker says that model or engine failed counts."""
    assert broke(ended(1, error=error.body())) is True


@pytest.mark.parametrize(
    "body",
    [
        ConversationError("").body(),
        ErrorBody(message="", type="server_error", code="expired"),
    ],
)
def test_what_the_client_sent_or_waited_for_tells_nothing(body: ErrorBody) -> None:
    """Content that a model cannot take, and a deadline, are no failures of the model's."""
    assert broke(ended(1, error=body)) is None


def test_wrong_answers_are_answers() -> None:
    """Checks that fail are the learners' business: the machinery worked."""
    for flaw in (Flaw("schema", "", "type"), Flaw("confidence", "")):
        assert not broke(ended(1, error=flaw.error().body()))
    assert broke(ended(1)) is False
    assert broke(ended(1, status=Status.CANCELLED)) is None  # nobody ran it


def test_a_model_that_breaks_is_left_after_a_few_requests() -> None:
    """After any number of good answers eight failures in a row open the tenant's breaker."""
    breakers = Breakers()
    for number in range(500):
        breakers.observe(ended(number), after(0))
    fail(breakers, "acme", 8)
    assert not breakers.allows("acme", "small", request_id(1), after(0))
    assert breakers.allows("acme", "large", request_id(1), after(0))


def test_rare_failures_open_nothing() -> None:
    """A model that fails every fourth time is bad, and the learners' business: it is not gone."""
    breakers = Breakers()
    for number in range(200):
        breakers.observe(ended(number, error=BROKEN if number % 4 == 0 else None), after(number))
        assert breakers.allows("acme", "small", request_id(1), after(number))


def test_one_tenants_failures_open_its_own_breaker_alone() -> None:
    """I8: however often one tenant's requests kill a model, nobody else is refused it."""
    breakers = Breakers()
    for second in range(100):
        fail(breakers, "evil", 50, second)
    assert breakers.state("small", after(99)) is BreakerState.CLOSED
    assert share_let_through(breakers, "acme", 99) == 1
    assert share_let_through(breakers, "evil", 99) == 0


def test_failures_of_many_tenants_open_it_for_all() -> None:
    """Four tenants with one failure each: nobody needs to find out for himself."""
    breakers = Breakers()
    for second, tenant in enumerate(("a", "b", "c", "d")):
        fail(breakers, tenant, 1, second)
    assert breakers.state("small", after(3)) is BreakerState.OPEN
    assert share_let_through(breakers, "newcomer", 3) == 0


def test_two_tenants_cannot_take_a_model_from_those_for_whom_it_works() -> None:
    """A vote needs three quarters: one tenant that is served outweighs two that are not."""
    breakers = Breakers()
    breakers.observe(ended(1, tenant="acme"), after(0))
    for second in range(10):
        breakers.observe(ended(1, tenant="acme"), after(second))
        fail(breakers, "evil", 5, second)
        fail(breakers, "worse", 5, second)
    assert share_let_through(breakers, "acme", 10) == 1


def test_a_half_open_breaker_lets_a_few_through_and_closes_with_the_first_answer() -> None:
    """The same few ids at every replica, bounded in number once the log tells of them."""
    breakers = Breakers()
    fail(breakers, "acme", 8)
    assert share_let_through(breakers, "acme", OPEN_S - 0.01) == 0
    assert 0.05 < share_let_through(breakers, "acme", OPEN_S + 0.01) < 0.25
    for number in range(PROBES):
        breakers.observe(routed(number), after(OPEN_S + 0.01))
    assert share_let_through(breakers, "acme", OPEN_S + 0.02) == 0
    assert share_let_through(breakers, "acme", 2 * OPEN_S + 0.02) > 0
    breakers.observe(ended(1), after(OPEN_S + 1))
    assert share_let_through(breakers, "acme", OPEN_S + 1) == 1


def test_a_rare_model_is_tried_by_whoever_comes() -> None:
    """The share of ids doubles, so that a model that is seldom asked for is tried again at all."""
    breakers = Breakers()
    fail(breakers, "acme", 8)
    assert share_let_through(breakers, "acme", 5 * OPEN_S) == 1


def test_failed_probes_open_it_for_longer_up_to_a_bound() -> None:
    """Twice as long each time; one answer and everything begins anew."""
    breaker, now_s, waits_s = Breaker(), 0.0, []
    for _ in range(8):
        breaker.trip(now_s)
        waits_s.append(breaker.retry_after_s(now_s))
        now_s += waits_s[-1]
    assert waits_s == [5, 10, 20, 40, 80, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]
    breaker.close()
    breaker.trip(now_s)
    assert breaker.retry_after_s(now_s) == OPEN_S


def test_one_tenants_failed_probes_do_not_shut_the_others_out_again() -> None:
    """I8: what opened for all stays half-open until another tenant's probe has failed as well."""
    breakers = Breakers()
    for second, tenant in enumerate(("a", "b", "c", "d")):
        fail(breakers, tenant, 1, second)
    fail(breakers, "evil", 100, 3 + OPEN_S)
    assert breakers.state("small", after(3 + OPEN_S)) is BreakerState.HALF_OPEN
    fail(breakers, "a", 1, 3 + OPEN_S)
    assert breakers.state("small", after(3 + OPEN_S)) is BreakerState.OPEN


def test_what_was_routed_before_it_opened_changes_nothing() -> None:
    """Late answers and late failures neither close an open breaker nor keep it open longer."""
    breakers = Breakers()
    fail(breakers, "acme", 8)
    breakers.observe(ended(1), after(1))
    fail(breakers, "acme", 8, 1)
    assert share_let_through(breakers, "acme", OPEN_S - 0.01) == 0
    assert share_let_through(breakers, "acme", OPEN_S) > 0


def test_a_named_model_is_refused_with_the_time_of_the_next_probe() -> None:
    """503 `model_failing`; the time is when the breaker lets requests through again."""
    breakers = Breakers()
    breakers.require("acme", "small", request_id(1), after(0))
    fail(breakers, "acme", 8)
    with pytest.raises(UnavailableError) as refused:
        breakers.require("acme", "small", request_id(1), after(2))
    assert (refused.value.code, refused.value.http_status) == ("model_failing", 503)
    assert refused.value.retry_after_s == pytest.approx(OPEN_S - 2)


def test_tenants_that_no_longer_use_a_model_are_forgotten() -> None:
    """Also where nothing ever fails: what is kept is bounded by who came in the last minutes."""
    breakers = Breakers()
    for second in range(5_000):
        breakers.observe(ended(second, tenant=f"t{second}"), after(second))
    assert len(breakers._models["small"].tenants) < 2_500


def test_time_that_runs_backwards_fades_nothing() -> None:
    """Facts of several machines: an earlier time changes neither the counts nor the clock."""
    tally = Tally()
    tally.count(100, failed=True)
    tally.count(40, failed=True)
    assert tally.failed == pytest.approx(1.9)
