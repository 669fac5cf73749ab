"""When open requests expire, and what is forgotten."""

from __future__ import annotations

from penstock_router.domain.fair_share import fair_lane
from penstock_router.domain.open_requests import OpenRequests
from penstock_shared.contracts.subjects import Lane


def subject(name: str) -> str:
    return f"v1.acme.events.request.{name}"


def test_they_expire_in_order_and_only_while_open() -> None:
    """What ended is never swept; what is open is swept once, oldest deadline first."""
    fold = OpenRequests(grace_s=5)
    for sequence, (name, deadline_unix_s) in enumerate((("b", 20.0), ("a", 10.0), ("c", 15.0)), 1):
        fold.fold_open(subject(name), sequence, deadline_unix_s)
    fold.fold_ended(subject("c"), 4)
    assert fold.take_expired(14.9) == []
    assert [r.subject for r in fold.take_expired(30.0)] == [subject("a"), subject("b")]
    assert fold.take_expired(99.0) == []
    assert (len(fold), fold.of_tenant("acme")) == (0, 0)


def test_what_could_not_be_ended_is_due_again() -> None:
    """Given back, it counts for its tenant again and expires at the time that was said."""
    fold = OpenRequests(grace_s=0)
    fold.fold_open(subject("a"), 1, 10.0)
    (request,) = fold.take_expired(10.0)
    fold.postpone(request, 12.0)
    assert fold.of_tenant("acme") == 1
    assert fold.take_expired(11.0) == []
    assert [r.sequence for r in fold.take_expired(12.0)] == [1]


def test_a_failed_attempt_moves_the_sequence_and_leaves_it_open() -> None:
    """The request goes on; whoever ends it must expect the newer fact."""
    fold = OpenRequests(grace_s=0)
    fold.fold_open(subject("a"), 1, 10.0)
    fold.fold_open(subject("a"), 7, 10.0)
    assert fold.of_tenant("acme") == 1
    assert [r.sequence for r in fold.take_expired(10.0)] == [7]


def test_history_is_forgotten() -> None:
    """Memory is bounded by what is open, however many requests and tenants have gone by."""
    fold = OpenRequests(grace_s=0)
    for n in range(5_000):
        name = f"v1.t{n}.events.request.{n}"
        fold.fold_open(name, 2 * n + 1, 1e9)
        fold.fold_ended(name, 2 * n + 2)
    assert len(fold._by_expiry) <= 1_001
    assert not fold._by_tenant


def test_the_share_grows_with_the_weight() -> None:
    """At the share, not before, a request goes to the over-share lane, whatever it asked for."""
    for weight in (1, 3):
        for asked in (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH):
            lanes = [
                fair_lane(asked, open_requests=n, fair_in_flight=4, weight=weight)
                for n in (4 * weight - 1, 4 * weight)
            ]
            assert lanes == [asked, Lane.OVER_SHARE]
