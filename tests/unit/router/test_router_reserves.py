"""What is reserved is a bound: of tokens, of money, for every kind of model (I4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.quotas import quota, routed
from tokenizers import normalizers

from penstock_router.domain.reserves import reserves_of
from penstock_shared.contracts.account_commands import UpdateTenant
from penstock_shared.contracts.models import ModelKind, ModelRecord
from penstock_shared.contracts.quotas import QuotaPeriod, period_end, period_start
from penstock_shared.contracts.requests import (
    MAX_INPUT_BYTES,
    ChatMessage,
    Content,
    Sampling,
)
from penstock_shared.contracts.reservations import reservations_json
from penstock_shared.contracts.usage import Price, Usage, cost_microusd

UNLIMITED = 10**9
PRICE = Price(input_microusd_per_1k=100, output_microusd_per_1k=200)
PRICES = st.builds(
    Price,
    input_microusd_per_1k=st.integers(0, 5_000),
    cached_input_microusd_per_1k=st.none() | st.integers(0, 5_000),
    output_microusd_per_1k=st.integers(0, 5_000),
    request_microusd=st.integers(0, 50),
)
ACCENTS = "\u0315\u0300\u0316"
NORMALISERS = [
    normalizers.Sequence([form(), *lower])
    for form in (normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD)
    for lower in ([], [normalizers.Lowercase()])
]


def model(context: int, kind: ModelKind = ModelKind.TEXT, price: Price = PRICE) -> ModelRecord:
    return ModelRecord(
        name="small",
        version="1",
        kind=kind,
        parameters=1,
        context_tokens=context,
        price=price,
    )


def said(*texts: str) -> Content:
    return Content(messages=tuple(ChatMessage(role="user", content=text) for text in texts))


@given(text=st.text(max_size=300))
@example("\ufdfa" * 50)  # a ligature of 3 bytes that becomes 33
@example("\u0130\u023a" * 50)  # letters that are longer in lower case
@example("\ud55c\uae00" * 50)  # Hangul, taken apart
def test_no_normaliser_makes_more_bytes_than_are_reserved(text: str) -> None:
    """A tokenizer that knows nothing makes a token of each byte, after whatever normal form."""
    (reserve,) = reserves_of(said(text), Sampling(max_output_tokens=1), [model(UNLIMITED)])
    for normaliser in NORMALISERS:
        assert len(normaliser.normalize_str(text).encode()) < reserve.tokens


@pytest.mark.timeout(20)
def test_a_letter_with_very_many_accents_is_no_work() -> None:
    """256 KiB of them, which a normal form sorts in minutes: everybody would wait (I8)."""
    text = "a" + ACCENTS * (MAX_INPUT_BYTES // len(ACCENTS.encode()))
    (reserve,) = reserves_of(said(text), Sampling(max_output_tokens=1), [model(UNLIMITED)])
    assert len(text.encode()) < reserve.tokens < 2 * len(text.encode())


@given(
    size=st.integers(0, 400),
    context=st.integers(1, 1_000),
    wanted=st.none() | st.integers(1, 1_000),
    price=PRICES,
    attempt=st.integers(1, 2),
    data=st.data(),
)
def test_no_use_that_a_worker_allows_is_dearer(
    size: int,
    context: int,
    wanted: int | None,
    price: Price,
    attempt: int,
    data: st.DataObject,
) -> None:
    """A prompt within the context, cached or not; an answer within what it leaves and was asked."""
    record = model(context, price=price)
    plan = reserves_of(said("x" * size), Sampling(max_output_tokens=wanted), [record, record])
    reserve = plan[attempt - 1]
    billed = price if attempt == 1 else price.of_a_retry()
    prompt = data.draw(st.integers(0, min(context, size + 256)))
    answer = data.draw(st.integers(0, min(context - prompt, wanted or context)))
    cached = data.draw(st.integers(0, prompt))
    used = Usage(input_tokens=prompt, cached_input_tokens=cached, output_tokens=answer)
    assert prompt + answer <= reserve.tokens <= context
    assert cost_microusd(used, billed) <= reserve.microusd


def test_each_kind_and_each_attempt_has_its_own_bound() -> None:
    """Texts to embed have a context each and no answer; a translation has one on each side."""
    texts = Content(texts=("a" * 100, "b" * 2_000))
    sampling = Sampling(max_output_tokens=50)
    (embedded,) = reserves_of(texts, sampling, [model(512, ModelKind.EMBEDDING)])
    assert embedded.tokens == 116 + 512
    (translated,) = reserves_of(
        Content(texts=("b" * 2_000,)), sampling, [model(512, ModelKind.TRANSLATION)]
    )
    assert translated.tokens == 512 + 50
    plan = reserves_of(said("hello"), Sampling(), [model(64), model(4_096)])
    assert [(one.attempt, one.tokens) for one in plan] == [(1, 64), (2, 4_096)]


def test_a_reservation_says_what_its_attempts_fact_will() -> None:
    """Each attempt with its own model, by tenant and by the UTC day of the acceptance."""
    late = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    request = routed(10, 20, accepted_at=late)
    text = reservations_json([request, routed(5, of="globex", accepted_at=late)])
    assert '"tenant": "acme", "day": "2026-01-31"' in text
    assert '"tenant": "globex"' in text
    assert text.count('"model": "large"') == 1


def test_periods_are_utc_days_and_months() -> None:
    """Wherever the clock is read, and at the end of a year, too."""
    tokyo = datetime(2027, 1, 1, 3, tzinfo=UTC).astimezone(tz=None) - timedelta(hours=6)
    assert period_start(QuotaPeriod.DAY, tokyo) == datetime(2026, 12, 31, tzinfo=UTC)
    assert period_start(QuotaPeriod.MONTH, tokyo) == datetime(2026, 12, 1, tzinfo=UTC)
    for period in QuotaPeriod:
        assert period_end(period, tokyo) == datetime(2027, 1, 1, tzinfo=UTC)


def test_one_quota_for_each_unit_and_period() -> None:
    """In whatever order they are sent, the record is the same."""
    both = (quota("tokens/day=1"), quota("requests/day=2"))
    assert UpdateTenant(tenant="acme", quotas=both).quotas == both[::-1]
    with pytest.raises(
        ValidationError, match="one hard and one soft quota for each unit and period"
    ):
        UpdateTenant(tenant="acme", quotas=(quota("tokens/day=1"), quota("tokens/day=2")))
