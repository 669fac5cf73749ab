"""Laws of standings: a function of what is unpaid and of time, whatever was said on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.domain.dunning import DunningTerms, next_try, obeyed, situation, suspends_at
from penstock_billing.ports.payment_book import Arrears, Situation
from penstock_shared.contracts.accounts import SuspensionReason, TenantRecord, TenantStatus
from penstock_shared.contracts.payments import Standing

START = datetime(2028, 2, 28, 23, tzinfo=UTC)  # the day before a leap day
TERMS = DunningTerms(
    retry_after=(timedelta(days=1), timedelta(days=3)),
    grace_after=timedelta(days=7),
    suspend_after=timedelta(days=14),
)
times = st.integers(0, 40 * 24).map(lambda hours: START + timedelta(hours=hours))
looks = st.lists(times, min_size=1, max_size=12)


@given(looks)
def test_how_often_it_is_looked_at_changes_nothing(moments: list[datetime]) -> None:
    """Any row of looks, repeated or going back, ends where one look at the latest time does."""
    walked = Situation()
    for at in moments:
        walked = situation(walked, Arrears(START), TERMS, at)
    at_once = situation(Situation(), Arrears(START), TERMS, max(moments))
    assert walked.standing is at_once.standing
    assert walked.failing_since == START


@given(looks, times)
def test_paying_always_ends_it(moments: list[datetime], paid_at: datetime) -> None:
    """Nothing unpaid: nobody is past due; who was suspended is restored, all others are current."""
    now = Situation()
    for at in moments:
        now = situation(now, Arrears(START), TERMS, at)
    paid = situation(now, Arrears(), TERMS, paid_at)
    was_out = now.standing is Standing.SUSPENDED
    assert paid.standing is (Standing.RESTORED if was_out else Standing.CURRENT)
    assert situation(paid, Arrears(), TERMS, paid_at + timedelta(days=1)) is paid
    assert suspends_at(paid, TERMS) is None


@given(times, times)
def test_nobody_is_suspended_before_the_time_that_was_told(at: datetime, until: datetime) -> None:
    """The suspension comes at the time that the facts announced, not before, and not later."""
    before = Situation(extended_until=until)
    now = situation(before, Arrears(START), TERMS, at)
    announced = suspends_at(situation(before, Arrears(START), TERMS, START), TERMS)
    assert announced == max(START + TERMS.suspend_after, until)
    assert (now.standing is Standing.SUSPENDED) == (at >= announced)


@given(times)
def test_retries_are_bounded_and_come_later(at: datetime) -> None:
    """A retry lies in the future, and there is a last one."""
    again = next_try(START, TERMS, at)
    last = START + TERMS.suspend_after - timedelta(hours=1)
    assert (again is None) == (at >= last)
    assert again is None or at < again <= last


@given(times)
def test_nobody_is_shut_out_while_all_of_it_is_on_its_way(at: datetime) -> None:
    """Who was suspended is let in while a provider moves the money, and out again if it fails."""
    before = situation(Situation(), Arrears(START), TERMS, at)
    paying = situation(before, Arrears(START, is_on_its_way=True), TERMS, at)
    assert paying.standing is not Standing.SUSPENDED
    assert situation(paying, Arrears(START), TERMS, at).standing is before.standing


@given(
    st.sampled_from(list(Standing)),
    st.sampled_from([None, *SuspensionReason]),
    st.sampled_from(list(TenantStatus)),
)
def test_only_our_own_suspension_is_lifted(
    standing: Standing, reason: SuspensionReason | None, status: TenantStatus
) -> None:
    """An operator's suspension, or one without a reason, stays whatever is paid (I8)."""
    suspended = status is TenantStatus.SUSPENDED
    record = TenantRecord(
        tenant="acme",
        name="Acme",
        status=status,
        suspended_reason=reason if suspended else None,
        created_at=START,
    )
    after = obeyed(record, standing)
    ours = suspended and record.suspended_reason is SuspensionReason.PAST_DUE
    if suspended and not ours:
        assert after == record
    else:
        assert (after.status is TenantStatus.SUSPENDED) == (standing is Standing.SUSPENDED)
    assert obeyed(after, standing) == after
