"""What each error means for ack, retry and HTTP: once, for everybody."""

from __future__ import annotations

import random

import pytest

from penstock_shared.contracts import errors
from penstock_shared.contracts.errors import Disposition, PenstockError, disposition_of
from penstock_shared.runtime.settlement import retry_delay_s

KINDS = {
    errors.TransientError: (503, Disposition.RETRY),
    errors.UnavailableError: (503, Disposition.RETRY),
    errors.RateLimitedError: (429, Disposition.RETRY),
    errors.PermanentError: (400, Disposition.REJECT),
    errors.AuthenticationError: (401, Disposition.REJECT),
    errors.PermissionDeniedError: (403, Disposition.REJECT),
    errors.NotFoundError: (404, Disposition.REJECT),
    errors.ConflictError: (409, Disposition.REJECT),
    errors.ErasedError: (410, Disposition.REJECT),
    errors.TooLargeError: (413, Disposition.REJECT),
    errors.SchemaError: (422, Disposition.REJECT),
}


@pytest.mark.parametrize(
    ("kind", "meaning"), KINDS.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_every_error_has_one_meaning(
    kind: type[PenstockError], meaning: tuple[int, Disposition]
) -> None:
    """HTTP status and disposition belong to the type; nobody maps them again."""
    raised = kind("what was wrong and what to do", param="field")
    assert (raised.http_status, disposition_of(raised)) == meaning
    assert raised.body().param == "field"


def test_no_error_type_is_without_a_meaning() -> None:
    """A new error type must be added to the table above."""

    def descendants(kind: type[PenstockError]) -> set[type[PenstockError]]:
        own = {k for k in kind.__subclasses__() if k.__module__ == errors.__name__}
        return own | {d for k in own for d in descendants(k)}

    assert descendants(PenstockError) == set(KINDS)


def test_bugs_are_counted_and_leak_nothing() -> None:
    """An unknown exception is retried, counted, and its text never reaches a client (I8)."""
    bug = RuntimeError("password=hunter2 at /srv/app.py")
    assert disposition_of(bug) is Disposition.COUNT
    assert "hunter2" not in errors.public_error(bug).body().model_dump_json()


def test_retry_delays_grow_and_stay_bounded() -> None:
    """Back-off is positive, capped at 30 s, and jittered by the generator that is handed in."""
    rng = random.Random(7)
    delays = [[retry_delay_s(n, rng) for _ in range(200)] for n in range(1, 20)]
    assert all(0.2 < delay <= 30.0 for row in delays for delay in row)
    assert sum(delays[5]) > sum(delays[0])
    assert len(set(delays[0])) > 100
