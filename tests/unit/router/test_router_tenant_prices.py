"""Decisions at a tenant's own prices."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from tests.support.decisions import decide_plainly
from tests.support.router import model_record

from penstock_router.domain.tenant_prices import at_prices
from penstock_shared.contracts.plans import PricesFrom, TenantPrices
from penstock_shared.contracts.submissions import conversation
from penstock_shared.contracts.usage import Price

DEAR = Price(input_microusd_per_1k=9_000_000, output_microusd_per_1k=9_000_000)
MODELS = (model_record("one"), model_record("two"))
PRICES = TenantPrices(
    tenant="acme",
    changes=(
        PricesFrom(from_day=date(2026, 11, 1), plan="p", version=1, prices={"one": DEAR}),
        PricesFrom(from_day=date(2026, 12, 1), plan="p", version=2, prices={"two": DEAR}),
    ),
)


def test_prices_change_at_midnight_utc_by_the_clock_of_acceptance() -> None:
    """A change that was announced needs nobody at midnight; other models keep their price."""
    last = datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    one, two = at_prices(MODELS, PRICES, last)
    assert (one.price, two) == (DEAR, MODELS[1])
    one, two = at_prices(MODELS, PRICES, last + timedelta(microseconds=1))
    assert (one, two.price) == (MODELS[0], DEAR)


def test_the_day_is_that_of_utc_whatever_the_clocks_zone() -> None:
    """Half past midnight in Tokyo is still yesterday's price."""
    tokyo = datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=9)))
    assert at_prices(MODELS, PRICES, tokyo)[0].price == DEAR


def test_a_tenant_without_prices_has_the_models_own() -> None:
    """And so has one whose first plan is yet to begin."""
    early = datetime(2026, 10, 31, tzinfo=UTC)
    assert at_prices(MODELS, None, early) == at_prices(MODELS, PRICES, early) == MODELS


def test_auto_takes_what_is_cheap_for_this_tenant() -> None:
    """Not the model that the plan makes dear; who names that one pays the plan's price."""
    now = datetime(2026, 11, 5, tzinfo=UTC)
    mine = at_prices(MODELS, PRICES, now)
    assert decide_plainly("auto", mine, conversation("hi")).models[0].name == "two"
    assert decide_plainly("one", mine, conversation("hi")).models[0].price == DEAR
