"""I8 of the breakers: what one tenant does to a model never takes it from another."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.support.breaking import BROKEN, START, ended, request_id, routed

from penstock_router.domain.breakers import Breakers

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("evil", "evil", "evil", "acme", "globex")),
        st.sampled_from(("routed", "worked", "failed", "failed")),
        st.floats(0, 20),
    ),
    max_size=120,
)


@given(STEPS)
def test_one_tenant_alone_takes_no_model_from_another(steps: list[tuple[str, str, float]]) -> None:
    """Whatever it sends and however that ends: those whose own requests work are never refused."""
    breakers, now = Breakers(), START
    for number, (tenant, what, wait_s) in enumerate(steps):
        now += timedelta(seconds=wait_s)
        if what == "routed":
            breakers.observe(routed(number, tenant=tenant), now)
        else:
            error = BROKEN if what == "failed" and tenant == "evil" else None
            breakers.observe(ended(number, tenant=tenant, error=error), now)
        for honest in ("acme", "globex", "newcomer"):
            assert breakers.allows(honest, "small", request_id(number), now)


@given(STEPS, st.integers(0, 120))
def test_replicas_that_read_the_same_log_agree(
    steps: list[tuple[str, str, float]], asked: int
) -> None:
    """The state depends on the facts and their times alone, not on questions in between."""
    one, other, now = Breakers(), Breakers(), START
    for number, (tenant, what, wait_s) in enumerate(steps):
        now += timedelta(seconds=wait_s)
        error = BROKEN if what == "failed" else None
        fact = (
            routed(number, tenant=tenant)
            if what == "routed"
            else ended(number, tenant=tenant, error=error)
        )
        one.observe(fact, now)
        for name in ("evil", "acme"):
            one.allows(name, "small", request_id(asked), now)
            one.state("small", now)
        other.observe(fact, now)
        assert one.allows("acme", "small", request_id(asked), now) == other.allows(
            "acme", "small", request_id(asked), now
        )
